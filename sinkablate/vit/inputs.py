"""The images that a vision transformer accepts: channels, size and patches."""

from typing import Any

from torch import nn

from sinkablate.vit.family import first_of

_EMBEDDINGS = ("embeds", "embeddings")
"""The module with class tokens and registers in timm's NaFlexViT and in transformers; other models have their own."""


def embeddings_of(model: nn.Module) -> nn.Module:
    """Return the module that holds a model's class tokens and registers: an inner one, or the model itself."""
    inner = first_of(model, _EMBEDDINGS)
    return inner if isinstance(inner, nn.Module) else model


def patch_size_of(model: nn.Module) -> int:
    """Return the side of a model's square patches in pixels; 1 if the model does not state it."""
    paths = ("patch_embed.patch_size", "embeds.patch_size", "config.patch_size", "patch_size")
    size: Any = first_of(model, paths) or 1
    return int(size if isinstance(size, int) else next(iter(size)))


def input_size_of(model: nn.Module) -> tuple[int, int] | None:
    """Return height and width of the images that a model was built for; None if it was built for any."""
    size: Any = first_of(model, ("patch_embed.img_size", "config.image_size"))
    if size is None:
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def input_shape(model: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of channels and the size (height, width) of a model's images.

    Each is None if the model accepts any or does not say; a toy, which reads sequences, has no channels.
    """
    embed: Any = getattr(model, "patch_embed", None)
    if embed is None:
        channels = first_of(model, ("in_chans", "config.num_channels"))  # NaFlexViT, models of transformers
        return channels if isinstance(channels, int) else None, None
    size = getattr(embed, "img_size", None) if getattr(embed, "strict_img_size", False) else None
    return getattr(getattr(embed, "proj", None), "in_channels", None), None if size is None else tuple(size)
