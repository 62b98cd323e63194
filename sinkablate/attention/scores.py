"""Logits to weights, as pure functions.

Axis letters: B images, H heads, N queries, M key columns (N, or N + 1 with a null or k/v-bias column last).
Rows sum to one for softmax only; nothing here normalizes the others.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.config import AttentionConfig

POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": lambda s: F.relu(s).square(),
    "gelu": F.gelu,
    "softplus": F.softplus,
    "identity": lambda s: s,
    "sigmoid": torch.sigmoid,
}


def clipped_softmax(s: Tensor, zeta: float, alpha: float) -> Tensor:
    """clip((zeta - gamma) softmax(s) + gamma, 0, 1) with gamma = -alpha / N (arXiv 2306.12929, eq. 4).

    gamma shrinks with N because a fixed one zeroes every weight of a uniform row once N > zeta / |gamma|.

    Args:
        s: Logits (..., N, N).
        zeta: Upper stretch, at least 1; above 1 a row may sum to more than one.
        alpha: Lower stretch times N, at least 0.
    """
    gamma = -alpha / s.shape[-1]
    return ((zeta - gamma) * s.softmax(dim=-1) + gamma).clamp(0, 1)


def weights_from_logits(s: Tensor, config: AttentionConfig, bias: Tensor | None = None) -> Tensor:
    """Attention weights A of every score but the sinks' extra column, which is already part of `s`.

    Args:
        s: Scaled logits q·k / sqrt(d) (B, H, N, M).
        config: The mechanism.
        bias: sigmoid with a learned bias: offset from -log N per head (H,).

    Returns:
        Weights (B, H, N, M), of the dtype of `s`.
    """
    n = s.shape[-1]
    match config.score:
        case "softmax":
            return s.softmax(dim=-1)
        case "clipped_softmax":
            return clipped_softmax(s, config.clip_zeta, config.clip_alpha)
        case "relu":
            return F.relu(s) / n
        case "pointwise":
            return POINTWISE[config.pointwise_function](s) * n**-config.pointwise_alpha
        case "polynomial":
            return s.pow(config.polynomial_power) * n**-0.5
        case "sigmoid":
            offset = 0.0 if bias is None else bias[:, None, None]
            return torch.sigmoid(s + (offset - math.log(n)))
