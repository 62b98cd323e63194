"""The rules that decide when a head has a sink event and how the event is labeled; a rule is a value.

An event is one (image, block, head). No published rule is calibrated, so a rule is always printed with its numbers.
Everything that lists rules (scalars, tables, figures, terminal, report) iterates over `rules`, so that a rule added
with `register_rule` appears everywhere. This module does not import torch; `labels.py` applies the rules.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, TypeVar

from sinkablate.config import ThresholdConfig
from sinkablate.errors import UserError

Value = TypeVar("Value")
DEFAULT_RULE = "causal"
"""The rule of scalars and columns whose names contain no rule, and the default for images."""
ADAPTIVE_RULE = "adaptive"
"""The most sensitive rule: the default for toys, and the rule by which heads are ranked."""
Place = Literal["fit", "diagnose", "figures"]
"""Where a rule can be shown, besides the files: the final table of `fit` or `diagnose`, and figures of single heads."""


class Label(IntEnum):
    """The verdict of a rule on one head of one block on one image.

    Attributes:
        NONE: No event.
        NOP: The sink's value is almost zero: the routed queries write nothing.
        BROADCAST: The sink passes its value, of normal size, to every query.
        OTHER: An event that is neither NOP nor broadcast.
        UNDEFINED: A quantity that the verdict needs is NaN.
    """

    NONE = 0
    NOP = 1
    BROADCAST = 2
    OTHER = 3
    UNDEFINED = 4


VERDICTS = (Label.NOP, Label.BROADCAST, Label.OTHER, Label.UNDEFINED)
"""The labels that are counted: all but `NONE`."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """An event threshold, the limits of the two labels, and where the rule is shown.

    Quantities are named as in the records (`heads.py`).
    """

    name: str
    """Part of column and scalar names: letters, digits, `_` and `.`."""
    title: str
    """When a head has an event, in plain words."""
    event_quantity: str
    event_min: float
    """An event: the event quantity is at least this."""
    ratio: str = "ratio_out"
    """The value ratio that separates NOP from broadcast."""
    rank: str | None = "stable_rank"
    """The stable rank that a broadcast must not exceed; None: broadcast does not depend on a rank."""
    nop_max: float
    """NOP: the ratio is at most this."""
    broadcast_min: float
    """Broadcast: the ratio is at least this ..."""
    rank_max: float
    """... and the stable rank at most this."""
    size: str = "rel_update"
    """The quantity that qualifies a broadcast: how much the head changes the residual stream."""
    shown: frozenset[Place] = frozenset(("fit", "diagnose", "figures"))
    """Where the rule is shown; the files contain every rule."""
    handoff: bool = True
    """Count events by block and token type, find the block where patches take over, and let the report follow the
    rule over training."""
    event_steps: tuple[float, ...] = ()
    """Other values of `event_min` in the sensitivity table; without any, the rule is left out of the table."""

    @property
    def limits(self) -> dict[str, dict[str, float]]:
        """Each quantity that decides between the labels of an event, with its limits by name."""
        ratio = {self.ratio: {"nop_max": self.nop_max, "broadcast_min": self.broadcast_min}}
        return ratio if self.rank is None else ratio | {self.rank: {"rank_max": self.rank_max}}

    def __str__(self) -> str:
        rank = "" if self.rank is None else f" and {self.rank} <= {self.rank_max:g}"
        return (
            f"{self.name}: event {self.event_quantity} >= {self.event_min:g}; "
            f"NOP {self.ratio} <= {self.nop_max:g}; broadcast {self.ratio} >= {self.broadcast_min:g}{rank}"
        )


RuleFactory = Callable[[ThresholdConfig], Rule]
_REGISTERED: list[RuleFactory] = []


def register_rule(factory: RuleFactory) -> RuleFactory:
    """Add a rule to those that every later measurement of this process applies; usable as a decorator.

    Args:
        factory: Makes the rule from the configured thresholds.

    Raises:
        UserError: The name is taken, or cannot be part of a column name.
    """
    name = factory(ThresholdConfig()).name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.]*", name) or name.startswith("effective_"):
        raise UserError(
            f"rule={name}: a name must begin with a letter, contain only letters, digits, _ and ., and not begin with "
            "effective_"
        )
    if name in {rule.name for rule in rules(ThresholdConfig())}:
        raise UserError(f"rule={name} already exists; choose another name")
    _REGISTERED.append(factory)
    return factory


def unregister_rule(factory: RuleFactory) -> None:
    """Undo `register_rule`."""
    _REGISTERED.remove(factory)


def rules(thresholds: ThresholdConfig) -> tuple[Rule, ...]:
    """`causal`, `lejepa`, `def1_<eps>` and `def1_lejepa_<eps>` for each eps, `adaptive`, then the registered rules."""
    causal = Rule(
        name=DEFAULT_RULE,
        title=f"{_percent(thresholds.event_min)} of the queries attend to one token",
        event_quantity="routed_frac",
        event_min=thresholds.event_min,
        nop_max=thresholds.nop_max,
        broadcast_min=thresholds.broadcast_min,
        rank_max=thresholds.rank_max,
        event_steps=(0.7, 0.8, 0.95),
    )
    lejepa = replace(
        causal,
        name="lejepa",
        title=f"{causal.title}, by raw values",
        ratio="ratio_head",
        rank=None,
        shown=frozenset(("diagnose",)),
        handoff=False,
        event_steps=(),
    )
    adaptive = replace(
        causal,
        name=ADAPTIVE_RULE,
        title=f"{_percent(thresholds.adaptive_min)} of the queries attend to one token",
        event_min=thresholds.adaptive_min,
        rank="routed_stable_rank",
        event_steps=(0.05, 0.2, 0.3),
    )
    return (
        causal,
        lejepa,
        *_def1(causal, lejepa, thresholds.def1_eps),
        adaptive,
        *(factory(thresholds) for factory in _REGISTERED),
    )


def _def1(causal: Rule, lejepa: Rule, steps: Sequence[float]) -> list[Rule]:
    """Return `def1_<eps>`, judged as by `causal`, for each eps, then `def1_lejepa_<eps>`, judged as by `lejepa`."""
    return [
        replace(
            rule,
            name=f"{name}_{eps:g}",
            title=f"every query gives {_percent(1 - eps)} to one token{rest}",
            event_quantity="min_a",
            event_min=1 - eps,
            shown=frozenset(("diagnose",) if eps == 0.3 else ()),
            handoff=False,
            event_steps=(),
        )
        for name, rule, rest in (("def1", causal, ""), ("def1_lejepa", lejepa, ", by raw values"))
        for eps in steps
    ]


def _percent(share: float) -> str:
    return f"≥ {100 * share:g} %"


def effective(rule: Rule) -> Rule:
    """Return the effective version of a rule: the same event, judged by the update after the output gate.

    It uses the `gated_*` ratio and rank. After the gate, only the ratio after W_O exists, so the effective `lejepa`
    uses it, too. The final tables show only the effective versions of rules that have figures.
    """
    return replace(
        rule,
        name=f"effective_{rule.name}",
        title=f"{rule.title}, after the gate",
        ratio="gated_ratio_out",
        size="gated_rel_update",
        rank=None if rule.rank is None else f"gated_{rule.rank}",
        shown=rule.shown - {"figures"} if "figures" in rule.shown else frozenset(),
        handoff=False,
        event_steps=(),
    )


def all_rules(thresholds: ThresholdConfig, *, gated: bool) -> tuple[Rule, ...]:
    """Return all rules, and the effective version of each for a model with output gates."""
    plain = rules(thresholds)
    return (*plain, *map(effective, plain)) if gated else plain


def shown_first(candidates: Sequence[Rule], name: str | None = None) -> list[Rule]:
    """Return the rules that a headline and figures show: the one with this name, then those that are shown in figures.

    Args:
        candidates: All rules of a model.
        name: The rule that is shown first, whether or not it is otherwise shown in figures; None leaves the order.
    """
    shown = [rule for rule in candidates if rule.name == name or "figures" in rule.shown]
    return sorted(shown, key=lambda rule: rule.name != name)


def rule_named(name: str, thresholds: ThresholdConfig, *, gated: bool = False) -> Rule:
    """Return a rule by its name; the effective rules exist for a model with output gates.

    Raises:
        UserError: The model has no rule of that name.
    """
    return of_rule(name, {rule.name: rule for rule in all_rules(thresholds, gated=gated)})


def of_rule(name: str, by_rule: Mapping[str, Value]) -> Value:
    """Return the value that belongs to a rule.

    Raises:
        UserError: No rule has this name; the message lists those that exist.
    """
    if name not in by_rule:
        raise UserError(f"rule={name}: no such rule; choose one of {', '.join(by_rule)}")
    return by_rule[name]


def scalar_prefix(rule: str) -> str:
    """Where the scalars of a rule are logged: `sink` for the default rule, `sink/<name>` for every other."""
    return "sink" if rule == DEFAULT_RULE else f"sink/{rule}"
