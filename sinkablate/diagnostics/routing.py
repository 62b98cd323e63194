"""Which column a head attends to most, and which queries are routed to it. Axis letters as in `view.py`.

With causal or local attention, a column is judged by the queries that can attend to it: its mean weight, and every
share, is over them. Only columns that at least half as many queries can attend to as to any other can be dominant:
the last tokens of a causal text have too few queries to be the sink of a sequence.
"""

from dataclasses import dataclass
from math import nan
from typing import Self

from torch import Tensor

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.columns import column_means
from sinkablate.diagnostics.entropy import mean_entropy
from sinkablate.diagnostics.shares import share
from sinkablate.diagnostics.softmax_sums import softmax_sums
from sinkablate.diagnostics.view import BlockView
from sinkablate.diagnostics.weight_sums import WeightSums, explicit_sums
from sinkablate.vit.tokens import TokenType


def sum_weights(view: BlockView, thresholds: ThresholdConfig, budget: int | None = None) -> WeightSums:
    """Reduce the attention weights of a block.

    Args:
        view: The block on one batch.
        thresholds: `group_top_k` is used.
        budget: Bytes of the weights that exist at a time, see `chunks`; changes speed and memory, not the results.
    """
    sums = explicit_sums if view.logits is None else softmax_sums
    return sums(view, thresholds.group_top_k, budget)


@dataclass(frozen=True, kw_only=True)
class Routing:
    """The routing of the heads of one block, or of several blocks with their heads side by side."""

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

    @classmethod
    def of(cls, sums: WeightSums, view: BlockView) -> Self:
        """Derive the routing from the sums over the weights.

        Args:
            sums: Those of one block, or of several.
            view: One of the blocks.
        """
        columns, means = column_means(sums.received, view)
        registers = view.layout.num_registers
        sizes = [1, sums.index.shape[-1] - registers - 1, registers]
        sink, strongest, _ = sums.index.split(sizes, dim=-1)
        at_sink, top, on_registers = sums.event.split(sizes, dim=-1)
        queries = None if view.visible is None else view.visible.mT
        on_tokens, dead = sums.on_tokens, sums.dead
        row_mass = columns[..., : view.layout.num_tokens].sum(-1) if on_tokens is None else on_tokens.mean(-1)
        return cls(
            columns=columns,
            sink=sink.squeeze(-1),
            mass=means.gather(-1, sink).squeeze(-1),
            at_sink=at_sink.squeeze(-1),
            judged=None if queries is None else queries[sink.squeeze(-1)],
            top=top.sum(-1),
            top_judged=None if queries is None else queries[strongest].any(-2),
            on_registers=on_registers.sum(-1) if registers else None,
            entropy=mean_entropy(sums.entropy, columns.shape[-1], dead, view.visible),
            row_mass=row_mass,
            dead_rows=0 * row_mass if dead is None else share(dead, sums.entropy),
            null_mass=_null_mass(columns, view),
        )


def _null_mass(columns: Tensor, view: BlockView) -> Tensor:
    """Return the mass that no value receives, (B, H); see `Routing.null_mass`."""
    if not (view.rows_sum_to_one and view.rows_at_most_one):
        return columns.new_full(columns.shape[:-1], nan)
    if not view.takes_null:
        return columns.new_zeros(columns.shape[:-1])
    return 1 - (columns * (view.column_types() != TokenType.NULL).unsqueeze(-2)).sum(-1)
