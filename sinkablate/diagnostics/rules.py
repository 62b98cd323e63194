"""Sink events and their labels: a rule is a value, applied to gathered records.

An event is one (image, block, head). No published rule is calibrated: a rule is always printed with its numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.vit.tokens import TokenType


class Label(IntEnum):
    """What a rule says of one (image, block, head)."""

    NONE = 0
    """No event."""
    NOP = 1
    """The sink's value is almost zero: the routed queries write nothing."""
    BROADCAST = 2
    """The sink hands its value, of normal size, to every query."""
    OTHER = 3
    """An event that is neither."""
    UNDEFINED = 4
    """A quantity the verdict needs is NaN."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An event threshold and the two labels; names are those of the quantities it reads."""

    name: str
    event_quantity: str
    event_min: float
    """An event: the event quantity is at least this."""
    ratio: str
    rank: str | None
    """None: broadcast does not depend on a rank."""
    nop_max: float
    """NOP: the ratio is at most this."""
    broadcast_min: float
    """Broadcast: the ratio is at least this ..."""
    rank_max: float
    """... and the stable rank at most this."""
    size: str = "rel_update"
    """What qualifies a broadcast: how much the head changes the residual stream."""

    def __str__(self) -> str:
        rank = "" if self.rank is None else f" and {self.rank} <= {self.rank_max:g}"
        return (
            f"{self.name}: event {self.event_quantity} >= {self.event_min:g}; "
            f"NOP {self.ratio} <= {self.nop_max:g}; broadcast {self.ratio} >= {self.broadcast_min:g}{rank}"
        )


def rules(thresholds: ThresholdConfig) -> tuple[Rule, ...]:
    """`causal`, `lejepa`, one `def1_<eps>` per eps, `adaptive`, in this order."""
    causal = Rule(
        name="causal",
        event_quantity="routed_frac",
        event_min=thresholds.event_min,
        ratio="ratio_out",
        rank="stable_rank",
        nop_max=thresholds.nop_max,
        broadcast_min=thresholds.broadcast_min,
        rank_max=thresholds.rank_max,
    )
    lejepa = replace(causal, name="lejepa", ratio="ratio_head", rank=None)
    def1 = (
        replace(causal, name=f"def1_{eps:g}", event_quantity="min_a", event_min=1 - eps) for eps in thresholds.def1_eps
    )
    adaptive = replace(causal, name="adaptive", event_min=thresholds.adaptive_min, rank="routed_stable_rank")
    return (causal, lejepa, *def1, adaptive)


def effective(rule: Rule) -> Rule:
    """The same rule on what an output gate lets through: `gated_*` ratio and rank, the same event.

    Only the ratio after W_O exists behind the gate, so `lejepa` reads that one too.
    """
    return replace(
        rule,
        name=f"effective_{rule.name}",
        ratio="gated_ratio_out",
        size="gated_rel_update",
        rank=None if rule.rank is None else f"gated_{rule.rank}",
    )


def all_rules(thresholds: ThresholdConfig, *, gated: bool) -> tuple[Rule, ...]:
    """The published rules, and the effective twin of each where an output gate exists."""
    published = rules(thresholds)
    return (*published, *map(effective, published)) if gated else published


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
    """

    def read(name: str) -> NDArray[np.float32]:
        # As measured: in float64 a stored fp32 .9 would miss a threshold of .9.
        return np.asarray(quantities[name], dtype=np.float32)

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
