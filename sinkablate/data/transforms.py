"""Training and evaluation transforms of timm, with a fast path for images that already have the right size."""

import random

import numpy as np
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_interp_mode
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torch import Tensor
from torchvision.transforms import (  # type: ignore[import-untyped]
    ColorJitter,
    Compose,
    GaussianBlur,
    InterpolationMode,
    RandomApply,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomSolarize,
)
from torchvision.transforms import functional as F

from sinkablate.config import AugmentConfig, ImageConfig, ImageSize, ViewsConfig, height_and_width
from sinkablate.errors import UserError


def train_transform(image: ImageConfig, augment: AugmentConfig) -> Compose:
    """timm's ImageNet training transform, from a PIL image to a normalized (C, H, W) fp32 tensor.

    Two differences from timm: a crop scale of (1, 1) disables the random crop, and `color_jitter` is applied in
    addition to `auto_augment` instead of being dropped.

    Raises:
        UserError: `auto_augment` is not a timm policy.
    """
    policy = "3a" if augment.three_augment else augment.auto_augment
    try:
        crop_and_flip, color, _ = transforms_imagenet_train(
            image.size,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            vflip=augment.vflip,
            color_jitter=augment.color_jitter or None,  # type: ignore[arg-type]  # None disables it, as in timm
            force_color_jitter=True,
            auto_augment=policy,
            interpolation=image.interpolation,
            mean=image.mean,
            std=image.std,
            separate=True,
        )
    except (AssertionError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"data.augment.auto_augment={policy}: not a timm policy ({error})") from None
    steps = [*crop_and_flip.transforms, *color.transforms, ToNormalizedTensor(image.mean, image.std)]
    if tuple(augment.scale) == (1.0, 1.0):
        steps[0] = ResizeAndCenterCrop(image.size, image.interpolation)
    if augment.reprob > 0:
        steps.append(RandomErasing(augment.reprob, mode=augment.remode, device="cpu"))  # type: ignore[no-untyped-call]
    return Compose(steps)


class Views:
    """Several random views of an image, stacked to (V, C, H, W).

    Args:
        image: Size and normalization.
        views: Number of views and the augmentation of each.
    """

    def __init__(self, image: ImageConfig, views: ViewsConfig) -> None:
        self.count = views.count
        self.view = Compose(
            [
                RandomResizedCrop(
                    image.size,
                    views.scale,
                    interpolation=str_to_interp_mode(
                        "bicubic" if image.interpolation == "random" else image.interpolation
                    ),
                ),
                RandomApply([ColorJitter(*views.jitter)], views.jitter_prob),
                RandomGrayscale(views.grayscale_prob),
                RandomApply([GaussianBlur(views.blur_size, (0.1, 2.0))], views.blur_prob),
                RandomSolarize(128, views.solarize_prob),
                RandomHorizontalFlip(views.hflip),
                ToNormalizedTensor(image.mean, image.std),
            ]
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """Draw the views from the global random states."""
        return torch.stack([self.view(image) for _ in range(self.count)])


def eval_transform(image: ImageConfig) -> Compose:
    """timm's ImageNet evaluation transform: resize, keeping the aspect ratio, center crop, normalize.

    The image is resized so that it just covers size / crop_pct.
    """
    interpolation = "bicubic" if image.interpolation == "random" else image.interpolation
    resize_and_crop = transforms_imagenet_eval(
        image.size, crop_pct=image.crop_pct, interpolation=interpolation, mean=image.mean, std=image.std
    ).transforms[:2]
    return Compose([*resize_and_crop, ToNormalizedTensor(image.mean, image.std)])


class ResizeAndCenterCrop:
    """Resize to just cover a size and crop the center; an image of the right size is returned unchanged.

    Args:
        size: Size of the result.
        interpolation: `random` draws bilinear or bicubic per image, as timm's random resized crop does.
    """

    def __init__(self, size: ImageSize, interpolation: str) -> None:
        self.size = height_and_width(size)
        names = ["bilinear", "bicubic"] if interpolation == "random" else [interpolation]
        self.modes: list[InterpolationMode] = [str_to_interp_mode(name) for name in names]  # type: ignore[no-untyped-call]

    def __call__(self, image: Image.Image) -> Image.Image:
        """Turn any PIL image into one of this size."""
        height, width = self.size
        if image.size == (width, height):
            return image
        mode = self.modes[0] if len(self.modes) == 1 else random.choice(self.modes)
        scale = max(height / image.height, width / image.width)
        covering = height if height == width else [round(image.height * scale), round(image.width * scale)]
        cropped: Image.Image = F.center_crop(F.resize(image, covering, mode), [height, width])
        return cropped


class ToNormalizedTensor:
    """torchvision's `ToTensor` and `Normalize` in one step, which takes a third of their time on a small image.

    Args:
        mean: Mean of each channel, for values in [0, 1].
        std: Standard deviation of each channel, for values in [0, 1].
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self.mean = torch.tensor(mean).mul(255).view(-1, 1, 1)
        self.std = torch.tensor(std).mul(255).view(-1, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """Turn a PIL image into a contiguous (C, H, W) fp32 tensor."""
        pixels = torch.from_numpy(np.array(image))
        pixels = pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1)
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).sub_(self.mean).div_(self.std)
