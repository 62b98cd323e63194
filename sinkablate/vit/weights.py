"""Reading weights from a local file, and what their head tells apart."""

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError, first_line

BACKBONE_PREFIX = "backbone."


def read_weights(path: str) -> tuple[dict[str, Tensor], bool]:
    """State dict in a .safetensors, .pt, .pth or .ckpt file, and whether a run of ours wrote it.

    Raises:
        UserError: The file is missing, truncated, or holds no tensors; the message names it.
    """
    key = f"model.backbone.checkpoint={path}"
    if not Path(path).is_file():
        raise UserError(f"{key}: no such file")
    try:
        if path.endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"{key}: truncated or not a checkpoint ({first_line(error)})") from error
    while isinstance(content, dict) and isinstance(inner := content.get("state_dict", content.get("model")), dict):
        content = inner
    tensors = (
        {
            k: v.float() if v.is_floating_point() else v  # positions are resampled in the dtype they come in
            for k, v in content.items()
            if isinstance(v, Tensor)
        }
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise UserError(f"{key}: holds no state dict")
    ours = {k.removeprefix(BACKBONE_PREFIX): v for k, v in tensors.items() if k.startswith(BACKBONE_PREFIX)}
    return (ours, True) if ours else (tensors, False)


def require_finite_weights(path: str, weights: dict[str, Tensor]) -> None:
    """Refuse weights that nothing can be trained from.

    Raises:
        UserError: A tensor holds NaN or infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(
                f"model.backbone.checkpoint={path}: {name} holds NaN or infinity; take an earlier checkpoint"
            )


def weights_classes(config: BackboneConfig, weights: dict[str, Tensor] | None = None) -> int:
    """Number of classes that the head of a configuration's weights tells apart, 0 without a head.

    Args:
        config: Names a file, or timm's weights.
        weights: The file's content where it is at hand.
    """
    cfg = timm.get_pretrained_cfg(config.name)
    if cfg is None:  # an unknown model, which is refused where it is made
        return 0
    if weights is None and config.checkpoint:
        weights = read_weights(config.checkpoint)[0]
    if weights is None:
        return int(cfg.num_classes or 0)
    classifier = cfg.classifier if isinstance(cfg.classifier, str) else "head"
    head = weights.get(f"{classifier}.weight")
    return 0 if head is None else len(head)
