"""Every quantity of a head, from its routing, its values and its update.

Names and definitions are those of the table in the documentation; axis letters as in `view.py`. Values are NaN
where they are undefined: for a single token, a zero denominator, an update of zero, or no routed queries.

Plain names describe the update before an output gate (G1), `gated_*` the one after it. A value gate (G2) is part of
the values, so plain names include its effect, and `raw_*` describe the values before it.

The heads of several blocks are measured together: their tensors are joined along the axis of heads, so H is the number
of heads of all these blocks. No function here waits for a GPU.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.columns import candidates_by_type
from sinkablate.diagnostics.head_factor import head_factor
from sinkablate.diagnostics.head_tensors import HeadTensors, project
from sinkablate.diagnostics.norms import mass_by_text_type, mass_by_type
from sinkablate.diagnostics.routing import Routing, sum_weights
from sinkablate.diagnostics.shares import divide, share
from sinkablate.diagnostics.updates import correlation, over_others, stable_ranks, update_quantities, value_ratio
from sinkablate.diagnostics.view import BlockView

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


@torch.no_grad()
def measure(
    view: BlockView, thresholds: ThresholdConfig, budget: int | None = None, factor: Tensor | None = None
) -> BlockMeasures:
    """Compute every quantity of one block.

    Args:
        view: The attention of the block on one batch.
        thresholds: Thresholds for routed and quiet queries and for groups of columns.
        budget: Bytes of the weights that exist at a time, see `chunks`; changes speed and memory, not the results.
        factor: `head_factor(view.out_map)`, if it has been computed before.
    """
    factor = head_factor(view.out_map) if factor is None else factor
    tensors = HeadTensors.of([view], [sum_weights(view, thresholds, budget)], factor)
    mass = {name: of_type.squeeze(1) for name, of_type in block_mass(tensors, view).items()}
    return BlockMeasures(head_quantities(tensors, thresholds), mass, candidates_by_type(view), sink_payload(tensors))


def block_mass(tensors: HeadTensors, view: BlockView) -> dict[str, Tensor]:
    """Return the share of attention mass that each token type receives in each of L blocks, (B, L) each.

    Args:
        tensors: The heads of the blocks.
        view: One of the blocks, for its token types.
    """
    mean = tensors.routing.columns.unflatten(1, (tensors.residual_norms.shape[1], -1)).mean(2)
    if view.token_types is None:
        return mass_by_type(mean, view.layout, view.extra)
    return mass_by_text_type(mean, view.column_types()[:, None])


def sink_payload(tensors: HeadTensors) -> Tensor:
    """Return R v_s (B, H, d), which is u_s = W v_s up to a rotation that is the same for every image."""
    return project(_rows_at(tensors.v, tensors.routing.sink), tensors.factor).squeeze(-2)


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


def head_quantities(tensors: HeadTensors, thresholds: ThresholdConfig) -> dict[str, Tensor]:
    """Return every quantity of the heads, (B, H) each, in the order of the table in the documentation."""
    routing = tensors.routing
    at_sink, judged = routing.at_sink, routing.judged
    routed = at_sink >= thresholds.routed_min
    types = tensors.types
    return {
        "sink_idx": routing.sink,
        "sink_type": types[routing.sink] if types.ndim == 1 else types.gather(1, routing.sink),
        "mass": routing.mass,
        "routed_frac": share(routed, at_sink, judged),
        **{f"routed_frac_at_{x:g}": share(at_sink >= x, at_sink, judged) for x in thresholds.routed_grid},
        "min_a": (at_sink if judged is None else at_sink.masked_fill(~judged, torch.inf)).amin(-1),
        "cond_mass": divide((at_sink * routed).sum(-1), routed.sum(-1)),
        "entropy": routing.entropy,
        "row_mass": routing.row_mass,
        "null_mass": routing.null_mass,
        "dead_rows": routing.dead_rows,
        **_group_events(routing, thresholds.routed_min),
        **_value_quantities(tensors, routed, thresholds.quiet_max),
        "sink_token_norm": _at_sink(tensors.per_head(tensors.residual_norms), routing.sink),
    }


def _group_events(routing: Routing, routed_min: float) -> dict[str, Tensor]:
    """Return the share of queries that give a group of columns together at least `routed_min`, to detect split sinks.

    The groups are all registers (NaN without any) and the columns with the largest mean weight, of any type.
    """
    registers = routing.on_registers
    return {
        "group_routed_frac": torch.full_like(routing.mass, torch.nan)
        if registers is None
        else share(registers >= routed_min, registers),
        "topk_routed_frac": share(routing.top >= routed_min, routing.top, routing.top_judged),
    }


def _value_quantities(tensors: HeadTensors, routed: Tensor, quiet_max: float) -> dict[str, Tensor]:
    """Return the quantities of the values, of the update and, if there is one, of the gate, (B, H) each."""
    routing, v, num_tokens = tensors.routing, tensors.v, tensors.num_tokens
    sink, norms, gate = routing.sink, tensors.norms(v), tensors.gate
    sink_norm, other_norm = over_others(norms, sink, num_tokens)
    residual_norm = tensors.per_head(tensors.residual_norms.mean(-1))

    def of_update(output: Tensor, norms: Tensor) -> dict[str, Tensor]:
        return update_quantities(
            project(output, tensors.factor),
            routed,
            value_norm=norms[..., :num_tokens].mean(-1),
            residual_norm=residual_norm,
            quiet_max=quiet_max,
        )

    value_norms = torch.linalg.vector_norm(v, dim=-1)
    quantities = {
        "ratio_head": value_ratio(value_norms, sink, num_tokens),
        "sink_head_norm": value_norms.gather(-1, sink[..., None]).squeeze(-1),
        "ratio_out": divide(sink_norm, other_norm),
        "sink_value_norm": sink_norm,
        **of_update(tensors.sums.output, norms),
    }
    if gate is None:
        return quantities
    quantities["gate_open"] = gate.mean((-2, -1))
    if tensors.gates_values:  # values are gated, not queries: openness cannot be correlated with routing
        return quantities | _before_value_gate(tensors)
    quantities["gate_corr"] = correlation(gate.mean(-1), routing.at_sink)
    assert tensors.sums.openness is not None
    passed = tensors.norms(tensors.sums.openness * v)
    handed = tensors.norms(routed_openness(gate, routed) * _rows_at(v, sink)).squeeze(-1)
    quantities["gated_ratio_out"] = divide(handed, over_others(passed, sink, num_tokens)[1])
    gated = of_update(gate * tensors.sums.output, passed)
    return quantities | {f"gated_{name}": gated[name] for name in GATED}


def routed_openness(gate: Tensor, routed: Tensor) -> Tensor:
    """Return the mean openness of the routed queries, (b, h, 1, 1 or d): mean_{i in I} g_i; NaN if there are none.

    Args:
        gate: g (b, h, N, 1 or d).
        routed: The rows I, (b, h, N) bool.
    """
    rows = routed[..., None]
    return divide((gate * rows).sum(-2, keepdim=True), rows.sum(-2, keepdim=True))


def _before_value_gate(tensors: HeadTensors) -> dict[str, Tensor]:
    """Return the `raw_*` quantities, of the values before a value gate (G2), (B, H) each; empty without `raw_v`."""
    v, output, sink, num_tokens = tensors.raw_v, tensors.sums.raw_output, tensors.routing.sink, tensors.num_tokens
    if v is None or output is None:
        return {}
    projected = project(output, tensors.factor)
    return {
        "raw_ratio_head": value_ratio(torch.linalg.vector_norm(v, dim=-1), sink, num_tokens),
        "raw_ratio_out": value_ratio(tensors.norms(v), sink, num_tokens),
        "raw_stable_rank": stable_ranks(projected)[0],
        "raw_update_norm": torch.linalg.vector_norm(projected, dim=-1).mean(-1),
    }


def _at_sink(per_token: Tensor, sink: Tensor) -> Tensor:
    """From numbers per token (B, H, N), select the one at each head's column s (B, H); NaN if s is not a token."""
    num_tokens = per_token.shape[-1]
    selected = per_token.gather(-1, sink.clamp_max(num_tokens - 1)[..., None]).squeeze(-1)
    return selected.masked_fill(sink >= num_tokens, torch.nan)


def _rows_at(v: Tensor, index: Tensor) -> Tensor:
    """Select v_s (b, h, 1, d) at each head's column s (b, h)."""
    return v.gather(-2, index[..., None, None].expand(*index.shape, 1, v.shape[-1]))
