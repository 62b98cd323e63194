"""What the rules say of a set of records: one label per image, block and head."""

import numpy as np
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import Label, Rule, all_rules, apply

Labels = NDArray[np.int8]

VERDICTS = (Label.NOP, Label.BROADCAST, Label.OTHER, Label.UNDEFINED)
"""What is counted beside `none`."""


def rules_for(records: Records, thresholds: ThresholdConfig) -> tuple[Rule, ...]:
    """The rules that records can be judged by."""
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
    """Rule name -> broadcast events whose head changes the residual stream at all, (n, L, H).

    rel_update >= rel_update_min; that of the update behind the gate for an effective rule.
    """
    least = np.float32(thresholds.rel_update_min)
    return {
        rule.name: (labels[rule.name] == Label.BROADCAST) & (records.heads[rule.size] >= least)
        for rule in rules_for(records, thresholds)
    }
