"""Run a vision transformer on images of a different size from the one it was built for."""

from copy import deepcopy
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

from torch import nn

from sinkablate.config import ConfigError
from sinkablate.vit.family import first_of

UNCHANGED = "of the model's own size"


class Resized(NamedTuple):
    """A model for images of a size, and how its position embedding fits them."""

    model: nn.Module
    positions: str


def patch_size_of(model: nn.Module) -> int:
    """Return the side of a model's square patches in pixels."""
    size: Any = first_of(model, ("patch_embed.patch_size", "config.patch_size", "patch_size"))
    return int(size if isinstance(size, int) else next(iter(size)))


def input_size_of(model: nn.Module) -> int | None:
    """Return the side of the square images that a model was built for; None if it has none."""
    size: Any = first_of(model, ("patch_embed.img_size", "config.image_size"))
    return size if isinstance(size, int) or size is None else int(next(iter(size)))


def resized(model: nn.Module, size: int) -> Resized:
    """Return a model that reads square images of a size; a copy unless it does already.

    timm's models resample their position embedding (`set_input_size`: bicubic, with antialiasing). Those of
    transformers interpolate theirs in every forward pass, some only if they are told to.

    Args:
        model: A vision transformer of timm or of Hugging Face's transformers.
        size: Side of the images in pixels.

    Raises:
        ConfigError: The images do not divide into whole patches, or the model reads images of its own size only.
    """
    patch, own = patch_size_of(model), input_size_of(model)
    if size % patch:
        raise ConfigError(
            f"size={size}: does not divide into patches of {patch} pixels; use a multiple, such as "
            f"{-(-size // patch) * patch}"
        )
    if own is None or own == size:
        return Resized(model, UNCHANGED)
    copy: Any = deepcopy(model)
    if hasattr(copy, "set_input_size"):
        copy.set_input_size(img_size=(size, size))
        return Resized(copy, f"resampled by timm's set_input_size from {own} to {size} pixels (bicubic, antialiased)")
    if "interpolate_pos_encoding" in signature(copy.forward).parameters:
        copy.forward = partial(copy.forward, interpolate_pos_encoding=True)
        return Resized(copy, f"interpolated by transformers from {own} to {size} pixels (interpolate_pos_encoding)")
    if hasattr(getattr(copy, "embeddings", None), "interpolate_pos_encoding") or first_of(copy, ("rope_embeddings",)):
        return Resized(copy, f"adapted by the model itself from {own} to {size} pixels, in every forward pass")
    raise ConfigError(
        f"size={size}: {type(model).__name__} does not interpolate its position embedding; use its own size, {own}"
    )
