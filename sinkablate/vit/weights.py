"""Reading weights from a local file, and the number of classes of their head."""

import pickle
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sinkablate.config import BackboneConfig, ConfigError
from sinkablate.errors import first_line
from sinkablate.vit.hub_folder import holds_variant

BACKBONE_PREFIX = "backbone."


def read_weights(path: str) -> tuple[dict[str, Tensor], bool]:
    """Return the state dict in a .safetensors, .pt, .pth or .ckpt file, and whether a run or `export` wrote it.

    Raises:
        ConfigError: The file is missing, truncated, or holds no tensors; the message names it.
    """
    key = f"checkpoint={path}"
    if not Path(path).is_file():
        raise ConfigError(f"{key}: no such file")
    try:
        if path.endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{key}: {_fault(error)}") from error
    while isinstance(content, dict) and isinstance(inner := content.get("state_dict", content.get("model")), dict):
        content = inner
    tensors = (
        {
            k: v.float() if v.is_floating_point() else v  # timm resamples positions in the dtype of the file
            for k, v in content.items()
            if isinstance(v, Tensor)
        }
        if isinstance(content, dict)
        else {}
    )
    if not tensors:
        raise ConfigError(f"{key}: contains no state dict")
    of_run = {k.removeprefix(BACKBONE_PREFIX): v for k, v in tensors.items() if k.startswith(BACKBONE_PREFIX)}
    return (of_run, True) if of_run else (tensors, path.endswith(".safetensors") and holds_variant(path))


def _fault(error: Exception) -> str:
    """Describe why a file was not read, without torch's hint to read it with `weights_only=False`."""
    if not isinstance(error, pickle.UnpicklingError):
        return f"truncated or not a checkpoint ({first_line(error)})"
    if "allowed global" in str(error):
        return "contains Python objects, which could run commands and are not read; save its state dict alone"
    return "truncated or not a checkpoint"


def require_finite_weights(path: str, weights: dict[str, Tensor]) -> None:
    """Refuse weights that cannot be trained from.

    Raises:
        ConfigError: A tensor holds NaN or infinity.
    """
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"checkpoint={path}: {name} holds NaN or infinity; use an earlier checkpoint")


def weights_classes(config: BackboneConfig, weights: dict[str, Tensor] | None = None) -> int:
    """Return the number of classes of the head that comes with a configuration's weights, 0 without a head.

    Args:
        config: Names a file, or timm's weights.
        weights: The content of the file, if it has already been read.
    """
    cfg = timm.get_pretrained_cfg(config.name)
    if cfg is None:  # an unknown model, which `create_timm_model` refuses
        return 0
    if weights is None and config.checkpoint:
        weights = read_weights(config.checkpoint)[0]
    if weights is None:
        return int(cfg.num_classes or 0)
    classifier = cfg.classifier if isinstance(cfg.classifier, str) else "head"
    head = weights.get(f"{classifier}.weight")
    return 0 if head is None else len(head)
