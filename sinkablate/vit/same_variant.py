"""Weights of a run or an exported model, for a model of the same variant."""

from math import isqrt
from typing import Any

from torch import Tensor

from sinkablate.config import BackboneConfig, ConfigError
from sinkablate.errors import shortened
from sinkablate.vit.positions import INTERPOLATIONS, Resampling


def load_same_variant(model: Any, weights: dict[str, Tensor], config: BackboneConfig) -> Resampling | None:
    """Load weights into a model of the same variant, in place.

    A head of another size keeps its initial weights, and a position embedding of square images of another size is
    resampled.

    Args:
        model: The model.
        weights: Its state dict, with the names of the model.
        config: The configuration of the model, whose `checkpoint` is named in messages.

    Returns:
        What was done to the position embedding; None if it was loaded as it is.

    Raises:
        ConfigError: The weights belong to another model.
    """
    own = model.state_dict()
    head = {name: tensor for name, tensor in own.items() if name.startswith("head.")}
    saved = {name: tensor.shape for name, tensor in weights.items() if name.startswith("head.")}
    if saved != {name: tensor.shape for name, tensor in head.items()}:
        weights = {name: tensor for name, tensor in weights.items() if name not in saved} | head
    resampling = None
    if [name for name, tensor in weights.items() if name in own and tensor.shape != own[name].shape] == ["pos_embed"]:
        resampling = _resampling(model, weights["pos_embed"], config)
    if resampling is not None:
        method = INTERPOLATIONS[resampling.method]
        weights = weights | {"pos_embed": method.resample(weights["pos_embed"], resampling.old, resampling.new)}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            f"checkpoint={config.checkpoint} belongs to another model: {shortened(str(error), 300)}"
        ) from error
    return resampling


def _resampling(model: Any, positions: Tensor, config: BackboneConfig) -> Resampling | None:
    """Return how a position embedding fits a model; None if it is not that of a square grid of patches."""
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    side = isqrt(max(0, positions.shape[1] - prefix))
    if side * side + prefix != positions.shape[1] or positions.shape[2] != model.embed_dim:
        return None
    return Resampling(method=config.pos_embed_interpolation, old=(side, side), new=model.patch_embed.grid_size)
