"""What the N x N attention weights of a block are reduced to, for mechanisms with a softmax and without.

Axis letters as in `view.py`. Event weights E are the weights A themselves for softmax and clipped softmax, and
|A_ij| / sum_j |A_ij| for scores whose rows do not sum to one. An all-zero row is dead: its E is zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from sinkablate.diagnostics.chunks import chunks
from sinkablate.diagnostics.columns import at_columns, columns_to_read
from sinkablate.diagnostics.entropy import row_entropy
from sinkablate.diagnostics.view import BlockView


@dataclass(frozen=True, kw_only=True)
class WeightSums:
    """Sums over the weights of one block, or of several blocks with their heads side by side."""

    received: Tensor
    """sum_i E_ij, (B, H, M)."""
    index: Tensor
    """`columns_to_read`, (B, H, c)."""
    event: Tensor
    """E_ij at these columns, (B, H, N, c)."""
    entropy: Tensor
    """Entropy of every row, zero for a dead one, (B, H, N)."""
    output: Tensor
    """A v, (B, H, N, d)."""
    raw_output: Tensor | None = None
    """G2 only: A v of the values before the gate, (B, H, N, d)."""
    openness: Tensor | None = None
    """G1 only: mean openness of each column's own queries, (B, H, M, 1 or d): sum_i |A_ij| g_i / sum_i |A_ij|, or the
    mean over all queries if no query attends to the column."""
    on_tokens: Tensor | None = None
    """sum_j |A_ij| over tokens, of every query, (B, H, N); None if all rows sum to one."""
    dead: Tensor | None = None
    """All-zero rows, (B, H, N) bool; None if there cannot be any."""

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Put the heads of several blocks side by side."""
        joined: dict[str, Any] = {field.name: side_by_side(blocks, field.name) for field in fields(cls)}
        return cls(**joined)


def side_by_side(parts: Sequence[object], name: str) -> Any:
    """Return a tensor attribute of several blocks joined along the axis of heads; None if it is None."""
    tensors = [getattr(part, name) for part in parts]
    return tensors[0] if tensors[0] is None or len(tensors) == 1 else torch.cat(tensors, dim=1)


def explicit_sums(view: BlockView, group: int, budget: int | None) -> WeightSums:
    """Sum the weights of a mechanism without a softmax, in chunks of whole matrices.

    Args:
        view: The block.
        group: Number of strongest columns.
        budget: As for `chunks`.
    """
    parts: dict[str, Any] = {}
    for images, heads, _ in chunks(view.q, view.k, budget, whole=True):
        for name, value in _sums_of(view, group, images, heads).items():
            if name not in parts:
                parts[name] = None if value is None else value.new_empty(*view.q.shape[:2], *value.shape[2:])
            if value is not None:
                parts[name][images, heads] = value
    return WeightSums(**parts)


def _sums_of(view: BlockView, group: int, images: slice, heads: slice) -> dict[str, Tensor | None]:
    """Return the fields of `WeightSums` for some images and heads."""
    part, num_tokens = (images, heads), view.layout.num_tokens
    weights = view.weights(images, heads)
    size = weights if view.rows_sum_to_one else weights.abs()
    on_tokens = size[..., :num_tokens].sum(-1)
    total = on_tokens + size[..., num_tokens:].sum(-1)
    output = weights @ view.v[part] if view.output is None else view.output[part]
    raw_output = None if view.raw_v is None else weights @ view.raw_v[part]
    gate = None if view.gate is None or view.gates_values else view.gate[part]
    openness = None if gate is None else mean_openness(size.mT @ gate, size.sum(-2), gate)
    entropy = row_entropy(size, total)
    if not view.rows_sum_to_one:
        size = size.div_(total.clamp_min(torch.finfo(total.dtype).tiny)[..., None])
    received = size.sum(-2)
    index = columns_to_read(received, view, group)
    return {
        "received": received,
        "index": index,
        "event": at_columns(size, index),
        "entropy": entropy,
        "output": output,
        "raw_output": raw_output,
        "openness": openness,
        "on_tokens": on_tokens,
        "dead": total == 0,
    }


def mean_openness(opened: Tensor, received: Tensor, gate: Tensor) -> Tensor:
    """Return the openness of `WeightSums`, (b, h, M, 1 or d).

    Args:
        opened: sum_i |A_ij| g_i, (b, h, M, 1 or d).
        received: sum_i |A_ij|, (b, h, M).
        gate: g, (b, h, N, 1 or d).
    """
    received = received[..., None]
    openness = opened / received.clamp_min(torch.finfo(received.dtype).tiny)
    return torch.where(received > 0, openness, gate.mean(-2, keepdim=True))
