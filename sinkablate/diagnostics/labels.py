"""Labels of measured heads: one per image, block and head, from each rule."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Label, Rule, all_rules
from sinkablate.errors import UserError
from sinkablate.vit.tokens import TokenType

Labels = NDArray[np.int8]
"""Values of `Label`."""


def apply(rule: Rule, quantities: Mapping[str, ArrayLike]) -> NDArray[np.int8]:
    """Label every entry of equally shaped arrays.

    A null column that dominates in an event is NOP by definition; a k/v-bias column is measured like a token.
    A NaN makes the label UNDEFINED where the verdict needs the number: the rank only for a ratio that allows
    broadcast, ratio and rank only in an event.

    Args:
        rule: The rule.
        quantities: The rule's quantities and `sink_type`, arrays of one shape.

    Returns:
        `Label` values of that shape.

    Raises:
        UserError: The rule reads a quantity that does not exist.
    """

    def read(name: str) -> NDArray[np.float32]:
        if name not in quantities:
            raise UserError(f"rule={rule.name}: {name} is not measured; choose one of {', '.join(sorted(quantities))}")
        return np.asarray(quantities[name], dtype=np.float32)  # in float64, a stored fp32 .9 would miss a limit of .9

    event, ratio = read(rule.event_quantity), read(rule.ratio)
    rank = np.zeros_like(ratio) if rule.rank is None else read(rule.rank)
    null = np.asarray(quantities["sink_type"]) == TokenType.NULL
    labels = np.select(
        [
            np.isnan(event),
            event < np.float32(rule.event_min),
            null,
            np.isnan(ratio),
            ratio <= np.float32(rule.nop_max),
            ratio < np.float32(rule.broadcast_min),
            np.isnan(rank),
            rank <= np.float32(rule.rank_max),
        ],
        [
            Label.UNDEFINED,
            Label.NONE,
            Label.NOP,
            Label.UNDEFINED,
            Label.NOP,
            Label.OTHER,
            Label.UNDEFINED,
            Label.BROADCAST,
        ],
        default=Label.OTHER,
    )
    return labels.astype(np.int8)


def rules_for(records: Records, thresholds: ThresholdConfig) -> tuple[Rule, ...]:
    """The rules that apply to records: the effective ones only if the model has an output gate."""
    return all_rules(thresholds, gated="gated_ratio_out" in records.heads)


def label_all(records: Records, thresholds: ThresholdConfig) -> dict[str, Labels]:
    """Rule name -> labels (n, L, H)."""
    return {rule.name: apply(rule, records.heads) for rule in rules_for(records, thresholds)}


def is_event(labels: Labels) -> NDArray[np.bool_]:
    """Events with a verdict: NOP, broadcast or other."""
    return np.isin(labels, (Label.NOP, Label.BROADCAST, Label.OTHER))


def qualified_all(
    labels: dict[str, Labels], records: Records, thresholds: ThresholdConfig
) -> dict[str, NDArray[np.bool_]]:
    """Rule name -> broadcast events whose head changes the residual stream noticeably, (n, L, H).

    rel_update >= rel_update_min; for an effective rule, that of the update after the gate.
    """
    least = np.float32(thresholds.rel_update_min)
    return {
        rule.name: (labels[rule.name] == Label.BROADCAST) & (records.heads[rule.size] >= least)
        for rule in rules_for(records, thresholds)
    }
