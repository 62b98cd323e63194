"""What the functions of the API accept as `images`, turned into batches of tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn

from sinkablate.data.decode import upright_image
from sinkablate.data.samples import Encoded
from sinkablate.diagnose.images import ImageSource, Preparation
from sinkablate.diagnostics.batches import pixels_of, stacked
from sinkablate.errors import UserError, first_line, require_at_least
from sinkablate.vit.anatomy import reads_texts
from sinkablate.vit.inputs import input_shape

Transform = Callable[[Image.Image], Tensor]
Images = Annotated[
    Tensor | str | Path | Iterable[Any], "a batch (n, C, H, W), a list of images, a location or a DataLoader"
]
"""Images to measure on:

- a batch (n, C, H, W);
- a list of tensors (C, H, W), PIL images or paths;
- a location as in `diagnose --images`: a folder, a list file, shards or `builtin`;
- for a language model of transformers, token ids (n, N) of texts of one length, without padding; or (n, 2, N) with
  the token types in the second row, see `TextTokenType`;
- what a tokenizer or an image processor of transformers returns as tensors, with `input_ids` or `pixel_values`;
- a DataLoader whose batches are tensors, tuples that begin with one, or mappings with `pixel_values`, `image` or
  `input_ids`.
"""
OWN_TRANSFORM = "sinkablate_transform"
"""Attribute of a run's model that holds the transform of its evaluation images."""
MIN_SIDE = 1


def batches_of(
    images: Images, model: nn.Module, *, transform: Transform | None = None, batch_size: int = 16
) -> Iterator[Tensor]:
    """Yield the images in batches; the batches of a DataLoader stay as they are.

    Args:
        images: See `Images`.
        model: The model that will receive them; a timm model has the transform of its weights.
        transform: From a PIL image to a tensor (C, H, W), for paths and PIL images.
        batch_size: Images per batch.

    Raises:
        UserError: There are no images, an image cannot be read, or no transform is known.
    """
    require_at_least(batch_size, 1, "batch_size")
    if isinstance(images, Mapping):  # what a tokenizer or an image processor returns
        images = pixels_of(images)
    if isinstance(images, Tensor):
        if not reads_texts(model) and (images.ndim < 3 or (images.ndim == 3 and input_shape(model)[0] is not None)):
            raise UserError(f"images: expected a batch (n, C, H, W), got a tensor of shape {tuple(images.shape)}")
        yield from images.split(batch_size)
    elif isinstance(images, str | Path):
        source = ImageSource(str(images), preparation_of(model, transform))
        yield from _stacked((picture.load() for picture in source.start(0)), batch_size)
    elif isinstance(images, Sequence) and not (images and isinstance(images[0], Mapping)):
        yield from _stacked(
            (_tensor(image, number, model, transform) for number, image in enumerate(images)), batch_size
        )
    else:
        yield from map(pixels_of, images)


def _stacked(tensors: Iterator[Tensor], batch_size: int) -> Iterator[Tensor]:
    while batch := list(islice(tensors, batch_size)):
        yield stacked(batch)


def _tensor(image: Any, number: int, model: nn.Module, transform: Transform | None) -> Tensor:
    """Return one item of a list as a tensor (C, H, W)."""
    if isinstance(image, Tensor):
        return image
    prepare = preparation_of(model, transform)
    if isinstance(image, Image.Image):
        return prepare(Encoded(upright_image(image, f"images: item {number}"), 0, f"image {number}", "images"))
    if not isinstance(image, str | Path):
        raise UserError(
            f"images: item {number} is of type {type(image).__name__}; give tensors (C, H, W), PIL images or paths"
        )
    try:
        content = Path(image).read_bytes()
    except OSError as error:
        raise UserError(f"images: {image} cannot be read: {error.strerror}") from None
    return prepare(Encoded(content, 0, Path(image).name, str(Path(image).parent)))


def preparation_of(model: nn.Module, transform: Transform | None) -> Preparation:
    """Return the transform to the model's input; by default that of the model's run or of timm's weights."""
    if reads_texts(model):
        raise UserError(
            f"images: {type(model).__name__} reads texts: give token ids (n, N), such as "
            "tokenizer(text, return_tensors='pt')"
        )
    weights = getattr(model, "pretrained_cfg", None)
    transform = transform or getattr(model, OWN_TRANSFORM, None)
    if transform is None and not weights:
        raise UserError(
            f"transform: {type(model).__name__} has no default transform; pass a function from a PIL image to a tensor"
        )
    data = resolve_data_config(_input_of(model), pretrained_cfg=weights or {})
    steps = create_transform(**data, is_training=False) if transform is None else _CheckedTransform(transform)
    return Preparation(steps, in_chans=data["input_size"][0], min_side=MIN_SIDE)


@dataclass(frozen=True)
class _CheckedTransform:
    """A user's transform, which must return a tensor (C, H, W)."""

    transform: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        try:
            tensor = self.transform(image)
        except Exception as error:
            raise UserError(f"transform: it raised {type(error).__name__}: {first_line(error)}") from error
        if not isinstance(tensor, Tensor) or tensor.ndim != 3:
            shape = f" of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else ""
            raise UserError(f"transform: must return a tensor (C, H, W), not {type(tensor).__name__}{shape}")
        return tensor


def _input_of(model: nn.Module) -> dict[str, Any]:
    """Return the model's own input size, where it differs from that of its weights."""
    size, channels = getattr(getattr(model, "patch_embed", None), "img_size", None), input_shape(model)[0] or 3
    return {"input_size": (channels, *size)} if size else {"in_chans": channels}
