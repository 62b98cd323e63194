"""Sums over the N x N weights of a softmax, in one pass that normalizes no row. Axis letters as in `view.py`.

With S the logits, m_i = max_j S_ij and z_i = sum_j exp(S_ij - m_i), the weights are A_ij = exp(S_ij - m_i) / z_i.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.diagnostics.chunks import chunks
from sinkablate.diagnostics.columns import at_columns, columns_to_read
from sinkablate.diagnostics.view import BlockView

SAME = 2
"""Logits of a row within this number of relative roundings of the largest count as the largest."""


@dataclass(frozen=True)
class SoftmaxSums:
    """What the weights of a block are summed to."""

    received: Tensor
    """sum_i A_ij, (B, H, M)."""
    entropy: Tensor
    """Entropy of every row, (B, H, N)."""
    index: Tensor
    """`columns_to_read`, (B, H, c)."""
    event: Tensor
    """A_ij at these columns, (B, H, N, c)."""
    output: Tensor
    """A v, (B, H, N, d)."""
    raw_output: Tensor | None
    """G2 only: A v of the values before the gate, (B, H, N, d)."""
    opened: Tensor | None
    """G1 only: sum_i A_ij g_i, (B, H, M, 1 or d)."""


def softmax_sums(view: BlockView, group: int, budget: int | None) -> SoftmaxSums:
    """Sum the weights of a block, in chunks of whole matrices, or of rows of a single image if a matrix is too large.

    The entropy of a row is log z_i - sum_j exp(S_ij - m_i) (S_ij - m_i) / z_i. Peaked rows lose no precision, because
    both terms approach zero.

    Args:
        view: The block.
        group: Number of strongest columns.
        budget: As for `chunks`.
    """
    q, k, logits = view.q, view.k.contiguous(), view.logits
    assert logits is not None
    highest, total, inner = (q.new_empty(q.shape[:3]) for _ in range(3))
    received, index = q.new_zeros(*q.shape[:2], k.shape[2]), None
    output = torch.empty_like(q) if view.output is None else view.output
    raw_output = None if view.raw_v is None else torch.empty_like(q)
    gate = None if view.gates_values else view.gate
    opened = None if gate is None else gate.new_zeros(*received.shape, gate.shape[-1])
    for images, heads, rows in chunks(q, k, budget):
        part, of_heads = (images, heads, rows), (images, heads)
        s = logits(q[part], k[of_heads], *part)
        largest = s.amax(-1, keepdim=True)
        a = s.sub_(largest).exp()
        z = a.sum(-1)
        highest[part], total[part], inner[part] = largest.squeeze(-1), z, s.mul_(a).sum(-1)
        share_of_row = z.reciprocal_()[..., None]
        received[of_heads] += (share_of_row.mT @ a).squeeze(-2)
        if view.output is None:
            output[part] = (a @ view.v[of_heads]).mul_(share_of_row)
        if raw_output is not None and view.raw_v is not None:
            raw_output[part] = (a @ view.raw_v[of_heads]).mul_(share_of_row)
        if opened is not None and gate is not None:
            opened[of_heads] += a.mT @ (gate[part] * share_of_row)
        if a.shape[2] == q.shape[2]:
            columns = columns_to_read(received[of_heads], view, group)
            if index is None:
                index, event = (
                    columns.new_empty(*q.shape[:2], columns.shape[-1]),
                    q.new_empty(*q.shape[:3], columns.shape[-1]),
                )
            index[of_heads], event[of_heads] = columns, at_columns(a, columns).mul_(share_of_row)
    if index is None:
        index = columns_to_read(received, view, group)
        event = _weights_again(view, k, index, highest).div_(total[..., None])
    entropy = (total.log() - inner / total).clamp_min(0)
    return SoftmaxSums(received, entropy, index, event, output, raw_output, opened)


def _weights_again(view: BlockView, k: Tensor, index: Tensor, highest: Tensor) -> Tensor:
    """Return exp(S_ij - m_i) at some columns, (B, H, N, c), from logits that are computed a second time.

    Products of other shapes round differently, so the largest logit of a row is recognized by its distance.

    Args:
        view: The block.
        k: Its keys, contiguous.
        index: The columns, (B, H, c).
        highest: m, (B, H, N).
    """
    assert view.logits is not None
    below = view.logits.at(view.q, k, index).sub_(highest[..., None])
    rounding = SAME * torch.finfo(below.dtype).eps * highest.abs()
    return below.where(below.abs() > rounding[..., None], 0).exp_()
