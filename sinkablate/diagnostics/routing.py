"""The only pass over the N x N attention weights of a block: everything that depends on them is reduced here.

Axis letters as in `view.py`. Every quantity of routing is computed from event weights E (b, h, N, M): the weights A
themselves for softmax and clipped softmax, |A_ij| / sum_j |A_ij| for scores whose rows do not sum to one. An all-zero
row is dead: its E is zero, so its query is not routed.

With causal or local attention, a column is judged by the queries that can attend to it: its mean weight, and every
share, is over them. Only columns that at least half as many queries can attend to as to any other can be dominant:
the last tokens of a causal text have too few queries to be the sink of a sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import nan
from typing import Any, Self

import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.chunks import chunks
from sinkablate.diagnostics.columns import at_columns, column_means, strongest_columns
from sinkablate.diagnostics.entropy import mean_entropy, row_entropy
from sinkablate.diagnostics.shares import first_largest, share
from sinkablate.diagnostics.softmax_sums import softmax_sums
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenType


@dataclass(frozen=True, kw_only=True)
class Routing:
    """What the weights of one block are reduced to, or those of several blocks with their heads side by side."""

    columns: Tensor
    """Mean event weight of each column over all queries, (B, H, M)."""
    sink: Tensor
    """Dominant column s, (B, H) int64."""
    mass: Tensor
    """Mean event weight of s over the queries that can attend to it, (B, H)."""
    at_sink: Tensor
    """E_is of every query, (B, H, N)."""
    judged: Tensor | None
    """The queries that can attend to s, (B, H, N) bool; None if all can."""
    top: Tensor
    """Event weight of the strongest columns together, of every query, (B, H, N)."""
    top_judged: Tensor | None
    """The queries that can attend to one of them, (B, H, N) bool; None if all can."""
    on_registers: Tensor | None
    """Event weight of all registers together, of every query, (B, H, N); None without registers."""
    entropy: Tensor
    """Mean entropy of the live rows over the logarithm of their number of columns, (B, H)."""
    row_mass: Tensor
    """Mean over queries of sum_j |A_ij| over tokens, (B, H)."""
    dead_rows: Tensor
    """Share of all-zero rows, (B, H)."""
    null_mass: Tensor
    """Mass that no value receives, (B, H): 1 minus the mass on columns with a value; NaN if a row may exceed one."""
    output: Tensor
    """A v, (B, H, N, d)."""
    raw_output: Tensor | None
    """G2 only: A v of the values before the gate, (B, H, N, d)."""
    openness: Tensor | None
    """G1 only: mean openness of each column's own queries, (B, H, M, 1 or d): sum_i |A_ij| g_i / sum_i |A_ij|, or the
    mean over all queries if no query attends to the column."""

    @classmethod
    def join(cls, blocks: Sequence[Self]) -> Self:
        """Put the heads of several blocks side by side."""
        joined: dict[str, Any] = {name: side_by_side(blocks, name) for name in FIELDS}
        return cls(**joined)


FIELDS = tuple(field.name for field in fields(Routing))


def side_by_side(parts: Sequence[object], name: str) -> Tensor | None:
    """Return a tensor attribute of several blocks joined along the axis of heads; None if it is None."""
    tensors = [getattr(part, name) for part in parts]
    return None if tensors[0] is None else torch.cat(tensors, dim=1)


def route(view: BlockView, thresholds: ThresholdConfig, budget: int | None = None) -> Routing:
    """Reduce the attention weights of a block.

    Args:
        view: The block on one batch.
        thresholds: `group_top_k` is used.
        budget: Bytes of the weights that exist at a time, see `chunks`; changes speed and memory, not the results.
    """
    if view.logits is not None:
        return _route_softmax(view, thresholds.group_top_k, budget)
    parts: dict[str, Any] = {}
    for images, heads, _ in chunks(view.q, view.k, budget, whole=True):
        for name, value in _route_weights(view, thresholds.group_top_k, images, heads).items():
            if name not in parts:
                parts[name] = None if value is None else value.new_empty(*view.q.shape[:2], *value.shape[2:])
            if value is not None:
                parts[name][images, heads] = value
    return Routing(**parts)


def _route_softmax(view: BlockView, group: int, budget: int | None) -> Routing:
    """Reduce the weights of a mechanism with a softmax."""
    sums = softmax_sums(view, group, budget)
    columns, means = column_means(sums.received, view)
    sink, strongest, registers = sums.index.split(_sizes(view, group), dim=-1)
    at_sink, top, on_registers = sums.event.split(_sizes(view, group), dim=-1)
    row_mass = columns[..., : view.layout.num_tokens].sum(-1)
    gate, opened = view.gate, sums.opened
    return Routing(
        columns=columns,
        sink=sink.squeeze(-1),
        mass=means.gather(-1, sink).squeeze(-1),
        at_sink=at_sink.squeeze(-1),
        top=top.sum(-1),
        on_registers=on_registers.sum(-1) if registers.shape[-1] else None,
        entropy=mean_entropy(sums.entropy, view.k.shape[2], view.visible),
        row_mass=row_mass,
        dead_rows=0 * row_mass,
        null_mass=_null_mass(columns, view),
        output=sums.output,
        raw_output=sums.raw_output,
        openness=None if opened is None or gate is None else _mean_openness(opened, sums.received, gate),
        **_judged(view, sink.squeeze(-1), strongest),
    )


def _sizes(view: BlockView, group: int) -> list[int]:
    """Return the lengths of the parts of `columns_to_read`: the dominant column, the strongest ones and registers."""
    return [1, min(group, view.k.shape[2]), view.layout.num_registers]


def _route_weights(view: BlockView, group: int, images: slice, heads: slice) -> dict[str, Tensor | None]:
    """Reduce the weights of some images and heads, of a mechanism without a softmax."""
    part, num_tokens = (images, heads), view.layout.num_tokens
    weights = view.weights(images, heads)
    size = weights if view.rows_sum_to_one else weights.abs()
    on_tokens = size[..., :num_tokens].sum(-1)
    total = on_tokens + size[..., num_tokens:].sum(-1)
    v = view.v[part]
    raw_output = None if view.raw_v is None else weights @ view.raw_v[part]
    output = weights @ v if view.output is None else view.output[part]
    gate = None if view.gate is None or view.gates_values else view.gate[part]
    openness = None if gate is None else _mean_openness(size.mT @ gate, size.sum(-2), gate)
    entropy = row_entropy(size, total)
    if not view.rows_sum_to_one:
        size = size.div_(total.clamp_min(torch.finfo(total.dtype).tiny)[..., None])
    columns, means = column_means(size.sum(-2), view)
    sink, strongest = first_largest(means), strongest_columns(means, group)
    registers = slice(view.layout.num_cls, view.layout.num_prefix)
    return {
        "columns": columns,
        "sink": sink,
        "mass": means.gather(-1, sink[..., None]).squeeze(-1),
        "at_sink": at_columns(size, sink[..., None]).squeeze(-1),
        "top": at_columns(size, strongest).sum(-1),
        "on_registers": size[..., registers].sum(-1) if view.layout.num_registers else None,
        "entropy": entropy,
        "row_mass": on_tokens.mean(-1),
        "dead_rows": share(total == 0, total),
        "null_mass": _null_mass(columns, view, images),
        "output": output,
        "raw_output": raw_output,
        "openness": openness,
        **_judged(view, sink, strongest),
    }


def _judged(view: BlockView, sink: Tensor, strongest: Tensor) -> dict[str, Tensor | None]:
    """Return the queries that can attend to the dominant column, and to one of the strongest columns."""
    if view.visible is None:
        return {"judged": None, "top_judged": None}
    queries = view.visible.mT
    return {"judged": queries[sink], "top_judged": queries[strongest].any(-2)}


def _null_mass(columns: Tensor, view: BlockView, images: slice = slice(None)) -> Tensor:
    """Return the mass that no value receives, (b, h); see `Routing.null_mass`."""
    if not (view.rows_sum_to_one and view.rows_at_most_one):
        return columns.new_full(columns.shape[:-1], nan)
    if not view.takes_null:
        return columns.new_zeros(columns.shape[:-1])
    return 1 - (columns * (view.column_types(images) != TokenType.NULL).unsqueeze(-2)).sum(-1)


def _mean_openness(opened: Tensor, received: Tensor, gate: Tensor) -> Tensor:
    """Return sum_i |A_ij| g_i / sum_i |A_ij|, (b, h, M, 1 or d); the mean over all queries where nothing is received.

    Args:
        opened: sum_i |A_ij| g_i, (b, h, M, 1 or d).
        received: sum_i |A_ij|, (b, h, M).
        gate: g, (b, h, N, 1 or d).
    """
    received = received[..., None]
    openness = opened / received.clamp_min(torch.finfo(received.dtype).tiny)
    return torch.where(received > 0, openness, gate.mean(-2, keepdim=True))
