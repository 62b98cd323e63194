"""Weights of a run or an exported model, for a model of the same variant."""

from math import isqrt, prod
from typing import Any, NamedTuple

from torch import Tensor

from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width
from sinkablate.errors import shortened
from sinkablate.vit.checkpoint_files import Checkpoint
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.positions import INTERPOLATIONS, Resampling

ADDITIONS = "; to add a mechanism to the weights of a run, export them with --format timm and name local-dir:FOLDER"
"""What to do with weights that lack some tensors of a model."""


class SameVariant(NamedTuple):
    """What was done to load weights into a model of the same variant."""

    loaded: set[str]
    """Names of the parameters that came with the weights."""
    resampling: Resampling | None
    """What was done to the position embedding; None if it was loaded as it is."""


def load_same_variant(model: Any, file: Checkpoint, config: BackboneConfig) -> SameVariant:
    """Load weights into a model of the same variant, in place.

    A head of another size keeps its initial weights, and the position embedding of images of another size is resampled.

    Args:
        model: The model.
        file: The weights, with the names of the model.
        config: The configuration of the model, whose `checkpoint` is named in messages.

    Raises:
        ConfigError: The weights belong to another model.
    """
    own, weights = model.state_dict(), file.weights
    head = {name: tensor for name, tensor in own.items() if name.startswith("head.")}
    saved = {name: tensor.shape for name, tensor in weights.items() if name.startswith("head.")}
    loaded = {name for name, _ in model.named_parameters()}
    if saved != {name: tensor.shape for name, tensor in head.items()}:
        loaded -= set(head)
        weights = {name: tensor for name, tensor in weights.items() if name not in saved} | head
    resampling = None
    differing = {name for name, tensor in weights.items() if name in own and tensor.shape != own[name].shape}
    if "pos_embed" in own and "pos_embed" in weights and differing <= {"pos_embed"}:
        resampling = _resampling(model, weights["pos_embed"], file.img_size, config)
    if resampling is not None:
        method = INTERPOLATIONS[resampling.method]
        weights = weights | {"pos_embed": method.resample(weights["pos_embed"], resampling.old, resampling.new)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        hint = ADDITIONS if weights.keys() < own.keys() else ""
        raise ConfigError(
            f"checkpoint={config.checkpoint} belongs to another model: {shortened(str(error), 300)}{hint}"
        ) from error
    return SameVariant(loaded, resampling)


def _resampling(model: Any, positions: Tensor, img_size: ImageSize | None, config: BackboneConfig) -> Resampling | None:
    """Return how a position embedding is fitted to a model; None if it has the grid of the model, or an unknown one.

    Args:
        model: The model.
        positions: The position embedding.
        img_size: Size of the images that it belongs to; None means squares.
        config: The configuration of the model.
    """
    patch = patch_size_of(model)
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    rows = positions.shape[1] - prefix
    side = isqrt(max(0, rows))
    height, width = height_and_width(side * patch if img_size is None else img_size)
    old = (height // patch, width // patch)
    if prod(old) != rows or positions.shape[2] != model.embed_dim or old == model.patch_embed.grid_size:
        return None
    return Resampling(method=config.pos_embed_interpolation, old=old, new=model.patch_embed.grid_size)
