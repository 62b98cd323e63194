"""Images and masks of a data set with masks, resized to squares as a model reads them."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sinkablate.config import ImageConfig, SegmentationConfig, keys_below
from sinkablate.data.decode import with_channels
from sinkablate.data.dense import BoxSet, MaskSet, open_masks
from sinkablate.data.transforms import ToNormalizedTensor
from sinkablate.diagnose.model import LoadedModel
from sinkablate.errors import UserError
from sinkablate.evaluate.images import PreparedImages
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.resizing import resized

SIDES = {"scenes": 56}
"""Side of the resized images of a data set in pixels, before it is rounded up to whole patches."""
OTHER_SIDES = 512


@dataclass(frozen=True, kw_only=True)
class SquareImages:
    """How an image becomes the input of a model: resized to a square without regard to its aspect ratio."""

    size: int
    in_chans: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def converted(self, image: Image.Image, name: str) -> Image.Image:
        """Return an image with the number of channels of the model.

        Raises:
            DataError: The channels cannot be converted.
        """
        neutral = ImageConfig(in_chans=self.in_chans, convert=True, mean=self.mean, std=self.std)
        return with_channels(image, neutral, name)

    def normalized(self, image: Image.Image) -> Tensor:
        """Turn a resized image into a tensor (C, H, W)."""
        return ToNormalizedTensor(self.mean, self.std)(image)

    def __call__(self, image: Image.Image, name: str = "image") -> Tensor:
        """Convert, resize bilinearly and normalize an image, (C, S, S)."""
        square = self.converted(image, name).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return self.normalized(square)


@dataclass(frozen=True, kw_only=True)
class DenseSplit:
    """One split of a data set with masks, as a model and a probe read it."""

    data: MaskSet
    square: SquareImages
    positions: str
    """How the position embedding of the model fits the images."""

    @property
    def images(self) -> PreparedImages:
        """The resized images."""
        return squared(self.data, self.square, self.positions)

    @property
    def masks(self) -> PreparedImages:
        """The masks (S, S) uint8, resized to the nearest pixel."""
        size = self.square.size
        return PreparedImages(
            count=len(self.data),
            load=lambda index: resized_mask(self.data.mask(index), size),
            name=self.data.key,
            identity=self.data.identity() | {"mask_size": size},
            size=size,
        )


@dataclass(frozen=True, kw_only=True)
class DenseSets:
    """The images that a segmentation probe learns from, and those that it is evaluated on."""

    train: DenseSplit
    val: DenseSplit

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.train.data.classes


def dense_sets(config: SegmentationConfig, loaded: LoadedModel) -> DenseSets:
    """Open the training and validation images of a data set with masks, prepared for a model.

    Raises:
        UserError: The data cannot be opened, or the model does not read images or not those of this size.
    """
    sets = {
        split: open_masks(config.data, split, num_classes=config.num_classes, background=config.background)
        for split in ("train", "val")
    }
    square, positions = square_images(loaded, config.size, sets["train"].name, "segmentation")
    return DenseSets(
        **{split: DenseSplit(data=data, square=square, positions=positions) for split, data in sets.items()}
    )


def square_images(loaded: LoadedModel, size: int | None, data: str, group: str) -> tuple[SquareImages, str]:
    """Return how the images of a data set become the input of a model, and how its position embedding fits them.

    Args:
        loaded: The model.
        size: Side in pixels; None means that of the data set.
        data: The kind of data set.
        group: Group of the key `size`, for messages.

    Raises:
        UserError: The model does not read images, or not those of this size.
    """
    if loaded.transform is None:
        raise UserError(f"{loaded.description['model']} does not read images, so it cannot be evaluated")
    patch = patch_size_of(loaded.model)
    side = size or -(-SIDES.get(data, OTHER_SIDES) // patch) * patch
    with keys_below(group):
        positions = resized(loaded.model, side).positions
    mean, std = normalization(loaded.transform, loaded.in_chans)
    return SquareImages(size=side, in_chans=loaded.in_chans, mean=mean, std=std), positions


def squared(data: MaskSet | BoxSet, square: SquareImages, positions: str) -> PreparedImages:
    """Return the images of a data set as a model reads them; for the arguments see `square_images`."""
    return PreparedImages(
        count=len(data),
        load=lambda index: square(data.image(index), data.key(index)),
        name=data.key,
        identity=data.identity() | asdict(square) | {"positions": positions},
        size=square.size,
    )


def resized_mask(mask: Any, size: int) -> Tensor:
    """Return a mask (H, W) resized to (size, size); each pixel has the class of the nearest one."""
    square = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(square))


def normalization(
    transform: Callable[[Image.Image], Tensor], in_chans: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, for pixel values in [0, 1], that a transform uses.

    They follow from what it makes of a black and of a white image, because every normalization is linear.
    """
    mode = "RGB" if in_chans == 3 else "L"
    black, white = (
        transform(Image.new(mode, (64, 64), color)).double().flatten(1).mean(1)
        for color in (("#000000", "#ffffff") if in_chans == 3 else (0, 255))
    )
    std = 1 / (white - black)
    mean = -black * std
    return tuple(round(x, 6) for x in mean.tolist()), tuple(round(x, 6) for x in std.tolist())
