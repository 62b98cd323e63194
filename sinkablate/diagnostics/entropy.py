"""Entropy of attention rows. Axis letters as in `view.py`."""

from math import log, nan

import torch
from torch import Tensor

from sinkablate.diagnostics.shares import divide


def row_entropy(size: Tensor, total: Tensor) -> Tensor:
    """Return the mean entropy of the live rows over log M, (b, h): H_i = log S_i - sum_j a_ij log a_ij / S_i.

    Args:
        size: a = |A|, (b, h, N, M), on any scale.
        total: S = its row sums, (b, h, N).
    """
    a_log_a = torch.linalg.vecdot(size, size.clamp_min(torch.finfo(size.dtype).tiny).log_())
    live = total > 0
    entropy = torch.where(live, total.log() - a_log_a / total, 0).clamp_min(0).sum(-1)
    return divide(entropy, live.sum(-1).to(entropy) * log(size.shape[-1]))


def mean_entropy(entropy: Tensor, num_columns: int, visible: Tensor | None = None) -> Tensor:
    """Return the mean over rows of their entropy over the logarithm of their number of columns, (B, H, N) -> (B, H).

    Args:
        entropy: Entropy of every row.
        num_columns: M.
        visible: Which queries can attend to which columns, (N, M) bool; rows of a single column are left out.
    """
    if visible is None:
        return entropy.mean(-1) / log(num_columns) if num_columns > 1 else torch.full_like(entropy[..., 0], nan)
    scale = visible.sum(-1).to(entropy).log()
    several = scale > 0
    return divide((entropy / scale).where(several, 0).sum(-1), several.sum(-1).to(entropy))
