"""Entropy of attention rows. Axis letters as in `view.py`."""

from math import log, nan

import torch
from torch import Tensor

from sinkablate.diagnostics.shares import divide


def row_entropy(size: Tensor, total: Tensor) -> Tensor:
    """Return the entropy of every row, (b, h, N): log S_i - sum_j a_ij log a_ij / S_i, or zero for an all-zero row.

    Args:
        size: a = |A|, (b, h, N, M), on any scale.
        total: S = its row sums, (b, h, N).
    """
    a_log_a = torch.linalg.vecdot(size, size.clamp_min(torch.finfo(size.dtype).tiny).log_())
    return (total.log() - a_log_a / total).clamp_min(0).masked_fill(total <= 0, 0)


def mean_entropy(
    entropy: Tensor, num_columns: int, dead: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """Return the mean over rows of their entropy over the logarithm of their number of columns, (B, H, N) -> (B, H).

    Args:
        entropy: Entropy of every row.
        num_columns: M.
        dead: All-zero rows, (B, H, N) bool, whose entropy is zero; they are left out.
        visible: Which queries can attend to which columns, (N, M) bool; rows of a single column are left out.
    """
    if visible is not None:
        scale = visible.sum(-1).to(entropy).log()
        several = scale > 0
        return divide((entropy / scale).where(several, 0).sum(-1), several.sum(-1).to(entropy))
    if num_columns == 1:
        return torch.full_like(entropy[..., 0], nan)
    live = entropy.shape[-1] if dead is None else (~dead).sum(-1).to(entropy)
    mean = entropy.sum(-1) / live
    return mean / log(num_columns)
