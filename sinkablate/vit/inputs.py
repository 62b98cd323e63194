"""The images that a vision transformer accepts."""

from typing import Any

from torch import nn


def input_shape(model: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Return the number of channels and the size (height, width) of a model's images.

    Each is None if the model accepts any or does not say; a toy, which reads sequences, has no channels.
    """
    embed: Any = getattr(model, "patch_embed", None)
    if embed is None:
        channels = getattr(getattr(model, "config", None), "num_channels", None)  # a model of transformers
        return channels if isinstance(channels, int) else None, None
    size = getattr(embed, "img_size", None) if getattr(embed, "strict_img_size", False) else None
    return getattr(getattr(embed, "proj", None), "in_channels", None), None if size is None else tuple(size)
