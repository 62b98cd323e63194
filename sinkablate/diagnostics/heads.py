"""Every quantity of one block per image and head, in one pass over its attention weights.

Names and definitions are those of the table in the documentation; axis letters as in `view.py`. Values are NaN
where they are undefined: for a single token, a zero denominator, an update of zero, or no routed queries.

Plain names describe the update before an output gate (G1), `gated_*` the one after it. A value gate (G2) is part of
the values, so plain names include its effect, and `raw_*` describe the values before it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.norms import mass_by_text_type, mass_by_type
from sinkablate.diagnostics.routing import Routing, candidates_by_type, divide, route
from sinkablate.diagnostics.updates import correlation, over_others, stable_rank, update_quantities, value_ratio
from sinkablate.diagnostics.view import BlockView, chunks, head_factor

GATED = ("stable_rank", "routed_stable_rank", "update_norm", "rel_update", "quiet_frac")
"""Quantities of the update that an output gate changes; after the gate, they are stored as `gated_*`."""


@dataclass(frozen=True)
class BlockMeasures:
    """Measurements of one block on one batch, in the dtype of the view."""

    heads: dict[str, Tensor]
    """Quantity name -> (B, H); `sink_idx` and `sink_type` are int64."""
    mass: dict[str, Tensor]
    """Token type -> share of the block's attention mass it receives, (B,)."""
    candidates: dict[str, Tensor]
    """Token type -> number of columns of the type that can be dominant, (B,) int64."""
    payload: Tensor
    """R v_s: u_s in d coordinates that preserve its norms and angles, (B, H, d)."""


@dataclass(frozen=True)
class _Chunk:
    """A slice of images and heads of one block, with everything that the quantities of values and updates need."""

    weights: Tensor
    """A (b, h, N, M), signed."""
    routing: Routing
    v: Tensor
    """(b, h, M, d)."""
    output: Tensor
    """A v (b, h, N, d)."""
    raw_v: Tensor | None
    gate: Tensor | None
    """(b, h, N, 1 or d)."""
    factor: Tensor
    """R (h, d, d)."""
    residual_norm: Tensor
    """mean_i ||residual_i||, (b, 1)."""
    num_tokens: int
    quiet_max: float

    def norms(self, x: Tensor) -> Tensor:
        """Return ||W x|| for every row, (b, h, n, d) -> (b, h, n)."""
        norms: Tensor = torch.linalg.vector_norm(_project(x, self.factor), dim=-1)
        return norms


@torch.no_grad()
def measure(
    view: BlockView, thresholds: ThresholdConfig, budget: int | None = None, factor: Tensor | None = None
) -> BlockMeasures:
    """Compute every quantity of one block.

    Args:
        view: The attention of the block on one batch.
        thresholds: Thresholds for routed and quiet queries and for groups of columns.
        budget: Bytes of one chunk's weight matrices, see `chunks`; changes speed and memory, not the results.
        factor: `head_factor(view.out_map)`, if it has been computed before.
    """
    factor = head_factor(view.out_map) if factor is None else factor
    residual_norm = torch.linalg.vector_norm(view.residual, dim=-1).mean(-1, keepdim=True)
    parts: dict[str, Tensor] = {}
    for images, heads in chunks(view, budget):
        part = (images, heads)
        weights, logits = view.weights_and_logits(images, heads)
        chunk = _Chunk(
            weights,
            route(weights, view, thresholds, logits, images),
            view.v[part].contiguous(),
            weights @ view.v[part] if view.output is None else view.output[part],
            None if view.raw_v is None else view.raw_v[part],
            None if view.gate is None else view.gate[part],
            factor[heads],
            residual_norm[images],
            view.layout.num_tokens,
            thresholds.quiet_max,
        )
        values = {
            "columns": chunk.routing.columns,
            **chunk.routing.quantities,
            **_value_quantities(chunk, view.gates_values),
        }
        for name, value in values.items():
            if name not in parts:
                parts[name] = value.new_empty(*view.q.shape[:2], *value.shape[2:])
            parts[name][part] = value
    columns = parts.pop("columns")
    parts["sink_token_norm"] = _at_sink(torch.linalg.vector_norm(view.residual, dim=-1), parts["sink_idx"])
    if view.token_types is None:
        mass = mass_by_type(columns, view.layout, view.extra)
    else:
        mass = mass_by_text_type(columns, view.column_types())
    return BlockMeasures(parts, mass, candidates_by_type(view), sink_payload(view, parts["sink_idx"], factor))


def sink_payload(view: BlockView, sink_idx: Tensor, factor: Tensor | None = None) -> Tensor:
    """Return R v_s (B, H, d), which is u_s = W v_s up to a rotation that is the same for every image.

    Args:
        view: The block.
        sink_idx: Dominant column, (B, H).
        factor: `head_factor(view.out_map)`, if it has been computed before.
    """
    factor = head_factor(view.out_map) if factor is None else factor
    return _project(_rows_at(view.v, sink_idx), factor).squeeze(-2)


def payload_constancy(total: Tensor, squares: Tensor, images: int) -> Tensor:
    """Return ||mean u_s||^2 / mean ||u_s||^2 over images, (...): one for a constant, content-free payload.

    Independent payloads of mean zero have 1 / images, so values of different numbers of images are not comparable. A
    single image is always its own mean: its constancy is undefined, NaN.

    Args:
        total: Sum of the payloads of all images, (..., d).
        squares: Sum of their squared norms, (...).
        images: Number of images.
    """
    if images < 2:
        return torch.full_like(squares, torch.nan)
    return divide(total.square().sum(-1) / images, squares)


def _value_quantities(chunk: _Chunk, gates_values: bool) -> dict[str, Tensor]:
    """Return the quantities of the values, of the update and, if there is one, of the gate, (b, h) each."""
    sink, norms, output = chunk.routing.sink, chunk.norms(chunk.v), chunk.output
    sink_norm, other_norm = over_others(norms, sink, chunk.num_tokens)

    def of_update(output: Tensor, norms: Tensor) -> dict[str, Tensor]:
        return update_quantities(
            _project(output, chunk.factor),
            chunk.routing,
            value_norm=norms[..., : chunk.num_tokens].mean(-1),
            residual_norm=chunk.residual_norm,
            quiet_max=chunk.quiet_max,
        )

    value_norms = torch.linalg.vector_norm(chunk.v, dim=-1)
    quantities = {
        "ratio_head": value_ratio(value_norms, sink, chunk.num_tokens),
        "sink_head_norm": value_norms.gather(-1, sink[..., None]).squeeze(-1),
        "ratio_out": divide(sink_norm, other_norm),
        "sink_value_norm": sink_norm,
        **of_update(output, norms),
    }
    if chunk.gate is None:
        return quantities
    quantities["gate_open"] = chunk.gate.mean((-2, -1))
    if gates_values:  # values are gated, not queries: openness cannot be correlated with routing
        return quantities | _before_value_gate(chunk)
    quantities["gate_corr"] = correlation(chunk.gate.mean(-1), chunk.routing.at_sink)
    passed = chunk.norms(openness_of_columns(chunk.weights, chunk.gate) * chunk.v)
    handed = chunk.norms(routed_openness(chunk.gate, chunk.routing.routed) * _rows_at(chunk.v, sink)).squeeze(-1)
    quantities["gated_ratio_out"] = divide(handed, over_others(passed, sink, chunk.num_tokens)[1])
    gated = of_update(chunk.gate * output, passed)
    return quantities | {f"gated_{name}": gated[name] for name in GATED}


def openness_of_columns(weights: Tensor, gate: Tensor) -> Tensor:
    """Return the mean openness of each column's own queries, (b, h, M, 1 or d): sum_i |A_ij| g_i / sum_i |A_ij|.

    For a column that no query attends to, it is the mean over all queries.

    Args:
        weights: A (b, h, N, M).
        gate: g (b, h, N, 1 or d).
    """
    size = weights.abs()
    received = size.sum(-2)[..., None]
    openness = size.mT @ gate / received.clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(received > 0, openness, gate.mean(-2, keepdim=True))


def routed_openness(gate: Tensor, routed: Tensor) -> Tensor:
    """Return the mean openness of the routed queries, (b, h, 1, 1 or d): mean_{i in I} g_i; NaN if there are none.

    Args:
        gate: g (b, h, N, 1 or d).
        routed: The rows I, (b, h, N) bool.
    """
    rows = routed[..., None]
    return divide((gate * rows).sum(-2, keepdim=True), rows.sum(-2, keepdim=True))


def _before_value_gate(chunk: _Chunk) -> dict[str, Tensor]:
    """Return the `raw_*` quantities, of the values before a value gate (G2), (b, h) each; empty without `raw_v`."""
    if chunk.raw_v is None:
        return {}
    v, sink = chunk.raw_v, chunk.routing.sink
    projected = _project(chunk.weights @ v, chunk.factor)
    return {
        "raw_ratio_head": value_ratio(torch.linalg.vector_norm(v, dim=-1), sink, chunk.num_tokens),
        "raw_ratio_out": value_ratio(chunk.norms(v), sink, chunk.num_tokens),
        "raw_stable_rank": stable_rank(projected),
        "raw_update_norm": torch.linalg.vector_norm(projected, dim=-1).mean(-1),
    }


def _project(x: Tensor, factor: Tensor) -> Tensor:
    """Return R x for every row x, (b, h, n, d), (h, d, d) -> (b, h, n, d)."""
    return x @ factor.mT


def _at_sink(per_token: Tensor, sink: Tensor) -> Tensor:
    """From one number per token (B, N), select the one at each head's column s (B, H); NaN if s is not a token."""
    num_tokens = per_token.shape[1]
    selected = per_token.gather(1, sink.clamp_max(num_tokens - 1))
    return selected.masked_fill(sink >= num_tokens, torch.nan)


def _rows_at(v: Tensor, index: Tensor) -> Tensor:
    """Select v_s (b, h, 1, d) at each head's column s (b, h)."""
    return v.gather(-2, index[..., None, None].expand(*index.shape, 1, v.shape[-1]))
