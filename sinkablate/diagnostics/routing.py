"""The quantities that depend on attention weights only. Axis letters as in `view.py`.

Every quantity of routing is computed from event weights E (b, h, N, M): the weights A themselves for softmax and
clipped softmax, |A_ij| / sum_j |A_ij| for scores whose rows do not sum to one. An all-zero row is dead: its E is zero,
so its query is not routed.

With causal or local attention, a column is judged by the queries that can attend to it: its mean weight, and every
share, is over them. Only columns that at least half as many queries can attend to as to any other can be dominant:
the last tokens of a causal text have too few queries to be the sink of a sequence.
"""

from dataclasses import dataclass
from math import log, nan

import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenType

TIE = 1e-5
"""Columns within this relative distance of the strongest count as tied, so that rounding does not choose the sink."""


@dataclass(frozen=True)
class Routing:
    """The routing of one chunk, as needed for the quantities of updates and the mass by token type."""

    columns: Tensor
    """Mean event weight of each column over all queries, (b, h, M)."""
    sink: Tensor
    """Dominant column s, (b, h) int64."""
    at_sink: Tensor
    """E_is of every query, (b, h, N)."""
    routed: Tensor
    """The rows I: E_is >= routed_min, (b, h, N) bool."""
    quantities: dict[str, Tensor]
    """Finished quantities, each (b, h)."""


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y, and NaN where y is not positive."""
    return torch.where(y > 0, x / y, nan)


def share(hit: Tensor, of: Tensor, among: Tensor | None = None) -> Tensor:
    """Return the share of hits (..., N) bool along the last axis, (...); NaN if the compared numbers `of` have a NaN.

    Computed in float64, so that 9 of 10 equals a threshold of 0.9 on every device. The share is among all, or among
    those that are marked in `among` (..., N) bool.
    """
    of_all = hit.double().mean(-1) if among is None else (hit & among).double().sum(-1) / among.double().sum(-1)
    return of_all.to(of.dtype).masked_fill(of.isnan().any(-1), nan)


def first_largest(x: Tensor) -> Tensor:
    """Return the lowest index among the largest entries of the last axis (see `TIE`), (...) int64, for x >= 0."""
    below = x < x.amax(-1, keepdim=True) * (1 - TIE)
    last = x.shape[-1] - 1
    return torch.arange(last + 1, device=x.device).expand_as(x).masked_fill(below, last).amin(-1)


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


def softmax_entropy(weights: Tensor, logits: Tensor, visible: Tensor | None = None) -> Tensor:
    """Return `row_entropy` of A = softmax(S), (b, h): H_i = -log max_j A_ij - sum_j A_ij (S_ij - max_j S_ij).

    This avoids the logarithm of N x M numbers, which costs as much as all other sums over them. Peaked rows lose no
    precision, because both terms approach zero. `logits`, S (b, h, N, M), are overwritten.

    With `visible` (N, M), the entropy of a row is divided by the logarithm of the number of its own columns, and rows
    of a single column are left out.
    """
    logits -= logits.amax(-1, keepdim=True)
    entropy = -torch.einsum("bhnm,bhnm->bhn", weights, logits) - weights.amax(-1).log()
    if visible is not None:
        scale = visible.sum(-1).to(entropy).log()
        return divide((entropy.clamp_min(0) / scale)[..., scale > 0].sum(-1), (scale > 0).to(entropy).sum())
    return divide(entropy.clamp_min(0).mean(-1), entropy.new_tensor(log(weights.shape[-1])))


def route(
    weights: Tensor,
    view: BlockView,
    thresholds: ThresholdConfig,
    logits: Tensor | None = None,
    images: slice = slice(None),
) -> Routing:
    """Find the dominant column and the routed queries of one chunk.

    Args:
        weights: A (b, h, N, M), signed, as the mechanism computes them.
        view: The block, for its token layout and the normalization of its rows.
        thresholds: `routed_min`, `routed_grid` and `group_top_k` are used.
        logits: S with A = softmax(S), if they exist; overwritten.
        images: Which of the view's images the chunk has.
    """
    num_tokens = view.layout.num_tokens
    size = weights if view.rows_sum_to_one else weights.abs()
    on_tokens = size[..., :num_tokens].sum(-1)
    total = on_tokens + size[..., num_tokens:].sum(-1)
    entropy = row_entropy(size, total) if logits is None else softmax_entropy(weights, logits, view.visible)
    if not view.rows_sum_to_one:
        size = size.div_(total.clamp_min(torch.finfo(total.dtype).tiny)[..., None])

    if view.visible is None:
        columns = means = size.mean(-2)
    else:
        received = size.sum(-2)
        columns, means = received / size.shape[-2], _means_of_candidates(received, view.visible, num_tokens)
    sink = first_largest(means)
    at_sink = size.gather(-1, sink[..., None, None].expand(*size.shape[:-1], 1)).squeeze(-1)
    routed = at_sink >= thresholds.routed_min
    among = None if view.visible is None else view.visible.T[sink]
    quantities = {
        "sink_idx": sink,
        "sink_type": _types_at(view.column_types(images), sink),
        "mass": means.gather(-1, sink[..., None]).squeeze(-1),
        "routed_frac": share(routed, at_sink, among),
        **{f"routed_frac_at_{level:g}": share(at_sink >= level, at_sink, among) for level in thresholds.routed_grid},
        "min_a": (at_sink if among is None else at_sink.masked_fill(~among, torch.inf)).amin(-1),
        "cond_mass": divide((at_sink * routed).sum(-1), routed.sum(-1)),
        "entropy": entropy,
        "row_mass": on_tokens.mean(-1),
        "null_mass": _null_mass(columns, view, images),
        "dead_rows": share(total == 0, total),
        **_group_events(size, means, view, thresholds),
    }
    return Routing(columns, sink, at_sink, routed, quantities)


def candidates(visible: Tensor, num_tokens: int) -> Tensor:
    """Mark the columns that can be dominant, (M,) bool.

    They are those to which at least half as many queries can attend as to the most visible token. A null column does
    not count as a token: every query can attend to it, even with local attention.

    Args:
        visible: Which queries can attend to which columns, (N, M) bool.
        num_tokens: Number of tokens N; later columns are extra ones.
    """
    queries = visible.sum(0)
    return 2 * queries >= queries[:num_tokens].amax()


def candidates_by_type(view: BlockView) -> dict[str, Tensor]:
    """Return the number of columns of each token type that can be dominant, (B,) int64 each."""
    types = view.column_types().expand(view.q.shape[0], -1)
    among = view.visible is None or candidates(view.visible, view.layout.num_tokens)
    return {kind.label: ((types == kind) & among).sum(-1) for kind in view.kinds}


def _means_of_candidates(received: Tensor, visible: Tensor, num_tokens: int) -> Tensor:
    """Return the mean event weight of each candidate over the queries that can attend to it, zero elsewhere, (b, h, M).

    Args:
        received: Sum of the event weights of each column over all queries, (b, h, M).
        visible: As for `candidates`.
        num_tokens: As for `candidates`.
    """
    means = received / visible.sum(0).clamp_min(1).to(received)
    return means.masked_fill(~candidates(visible, num_tokens), 0)


def _types_at(types: Tensor, sink: Tensor) -> Tensor:
    """Return the token type of each head's column s (b, h), from the types (M,), or those of each text (b, M)."""
    return types[sink] if types.ndim == 1 else types.gather(1, sink)


def _null_mass(columns: Tensor, view: BlockView, images: slice) -> Tensor:
    """Return the mass that no value receives, (b, h): 1 minus the mass on columns that carry a value.

    0 if rows sum to one over such columns (softmax, k/v bias), NaN if a row may exceed one.
    """
    if not (view.rows_sum_to_one and view.rows_at_most_one):
        return columns.new_full(columns.shape[:-1], nan)
    if not view.takes_null:
        return columns.new_zeros(columns.shape[:-1])
    return 1 - (columns * (view.column_types(images) != TokenType.NULL).unsqueeze(-2)).sum(-1)


def _group_events(size: Tensor, means: Tensor, view: BlockView, thresholds: ThresholdConfig) -> dict[str, Tensor]:
    """Return the share of queries that give a group of columns together at least `routed_min`, to detect split sinks.

    The groups are all registers (NaN without any) and the k columns with the largest mean weight, of any type.
    """
    k = min(thresholds.group_top_k, means.shape[-1])
    strongest = means.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    top = size.gather(-1, strongest[..., None, :].expand(*size.shape[:-1], k)).sum(-1)
    among = None if view.visible is None else view.visible.T[strongest].any(-2)
    registers = size[..., view.layout.num_cls : view.layout.num_prefix].sum(-1)
    grouped = share(registers >= thresholds.routed_min, registers)
    return {
        "group_routed_frac": grouped if view.layout.num_registers else torch.full_like(grouped, nan),
        "topk_routed_frac": share(top >= thresholds.routed_min, top, among),
    }
