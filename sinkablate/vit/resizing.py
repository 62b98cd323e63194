"""Run a vision transformer on images of a different size from the one it was built for."""

from copy import deepcopy
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

from torch import nn

from sinkablate.config import ConfigError, ImageSize, height_and_width, image_size, size_text, size_value
from sinkablate.vit.family import first_of
from sinkablate.vit.inputs import input_size_of, patch_size_of
from sinkablate.vit.positions import change_input_size, record_of

UNCHANGED = "of the model's own size"


class Resized(NamedTuple):
    """A model for images of a size, and how its position embedding fits them."""

    model: nn.Module
    positions: str


def resized(model: nn.Module, size: ImageSize) -> Resized:
    """Return a model that reads images of a size: the model itself if it does, otherwise a copy.

    The position embedding of timm's models is resampled with the method that the model was built with, otherwise as
    timm does. Models of transformers interpolate theirs in every forward pass, some only if they are told to.

    Args:
        model: A vision transformer of timm or of Hugging Face's transformers.
        size: Size of the images.

    Raises:
        ConfigError: The images do not divide into whole patches, or the model reads images of its own size only.
    """
    require_whole_patches(size, patch_size_of(model), "size")
    own, new = input_size_of(model), height_and_width(size)
    if own is None or own == new:
        return Resized(model, UNCHANGED)
    copy: Any = deepcopy(model)
    step = f"from {size_text(image_size(*own))} to {size_text(size)} pixels"
    if hasattr(copy, "set_input_size"):
        method = record_of(model).method
        change_input_size(copy, new, method)
        if method != "timm":
            return Resized(copy, f"resampled as {method} does {step}")
        return Resized(copy, f"resampled by timm's set_input_size {step} (bicubic, antialiased)")
    if "interpolate_pos_encoding" in signature(copy.forward).parameters:
        copy.forward = partial(copy.forward, interpolate_pos_encoding=True)
        return Resized(copy, f"interpolated by transformers {step} (interpolate_pos_encoding)")
    if hasattr(getattr(copy, "embeddings", None), "interpolate_pos_encoding") or first_of(copy, ("rope_embeddings",)):
        return Resized(copy, f"adapted by the model itself {step}, in every forward pass")
    raise ConfigError(
        f"size={size_value(size)}: {type(model).__name__} does not interpolate its position embedding; use its own "
        f"size, {size_value(image_size(*own))}"
    )


def require_whole_patches(size: ImageSize, patch: int, key: str) -> None:
    """Refuse images that do not divide into patches, and name the nearest sizes that do.

    Args:
        size: Size of the images.
        patch: Side of a patch in pixels.
        key: Name of the size, with which the message begins.

    Raises:
        ConfigError: The height or the width is not a multiple of the side of a patch.
    """
    if all(side % patch == 0 for side in height_and_width(size)):
        return
    raise ConfigError(
        f"{key}={size_value(size)}: does not divide into patches of {patch} pixels; use a multiple, such as "
        f"{nearest_sizes(size, patch)}"
    )


def nearest_sizes(size: ImageSize, patch: int) -> str:
    """Return the next smaller and the next larger size that divide into patches, as values of a key."""
    height, width = height_and_width(size)
    smaller = height // patch * patch, width // patch * patch
    larger = -(-height // patch) * patch, -(-width // patch) * patch
    return " or ".join(size_value(image_size(*sides)) for sides in (smaller, larger) if all(sides))
