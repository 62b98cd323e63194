"""How labels change when the thresholds move; no published threshold is calibrated.

There are four axes: the smallest mass that routes a query, the smallest share of routed queries in an event, the pair
of value ratios, and the largest rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import Labels, apply, is_event
from sinkablate.diagnostics.rules import Label, Rule, rules

AXES = ("routed_min", "event_min", "ratio", "rank_max")
RATIO_STEPS = ((0.5, 1.4), (0.75, 1.2), (1.0, 1.0), (1.25, 0.9), (1.5, 0.8))
"""Factors on (nop_max, broadcast_min), from strict to lenient."""
RANK_STEPS = (1.1, 1.25, 2.0, 3.0)


@dataclass(frozen=True)
class Grid:
    """The values of each axis, ascending or from strict to lenient, and the position of the rule itself."""

    rule: Rule
    values: dict[str, tuple[float, ...]]
    home: dict[str, int]

    @classmethod
    def around(cls, rule: Rule, thresholds: ThresholdConfig) -> "Grid":
        """Make the grid around a rule; `ratio` holds indices into `RATIO_STEPS`."""
        own = {"routed_min": thresholds.routed_min, "event_min": rule.event_min, "rank_max": rule.rank_max}
        levels = thresholds.routed_grid if rule.event_quantity == "routed_frac" else ()
        steps = {"routed_min": levels, "event_min": rule.event_steps, "rank_max": RANK_STEPS}
        values = {name: tuple(sorted({*steps[name], at})) for name, at in own.items()}
        values["ratio"] = tuple(range(len(RATIO_STEPS)))
        home = {name: values[name].index(at) for name, at in own.items()} | {"ratio": RATIO_STEPS.index((1.0, 1.0))}
        return cls(rule, {axis: values[axis] for axis in AXES}, {axis: home[axis] for axis in AXES})

    def at(self, point: Mapping[str, int], thresholds: ThresholdConfig) -> Rule:
        """Return the rule at one point; quantities over the routed rows remain those of the configured `routed_min`."""
        level = self.values["routed_min"][point["routed_min"]]
        nop, broadcast = RATIO_STEPS[point["ratio"]]
        return replace(
            self.rule,
            event_min=self.values["event_min"][point["event_min"]],
            event_quantity=self.rule.event_quantity if level == thresholds.routed_min else f"routed_frac_at_{level:g}",
            nop_max=self.rule.nop_max * nop,
            broadcast_min=self.rule.broadcast_min * broadcast,
            rank_max=self.values["rank_max"][point["rank_max"]],
        )

    def neighbors(self) -> dict[str, list[dict[str, int]]]:
        """Return the grid points one step away from the rule, by axis."""
        points = {}
        for axis in AXES:
            steps = (self.home[axis] - 1, self.home[axis] + 1)
            points[axis] = [self.home | {axis: step} for step in steps if 0 <= step < len(self.values[axis])]
        return points


def sensitivity(
    heads: Mapping[str, NDArray[np.float32]], thresholds: ThresholdConfig
) -> tuple[pl.DataFrame, dict[str, dict[str, float | None]]]:
    """Count labels over the grid around every rule with `event_steps`, and those that neighboring thresholds keep.

    Args:
        heads: Quantity -> (n, L, H) of the counted blocks, as in `Records`.
        thresholds: The configured thresholds; `routed_grid` lists the other masses that were measured.

    Returns:
        A table with one row per rule and grid point: the thresholds, events, nop, broadcast, other per image; and for
        each rule the share of events that keep their label under every neighboring value of each axis, and of `all`
        axes (one at a time); None without events.
    """
    tables, survival = [], {}
    for rule in rules(thresholds):
        if rule.event_steps:
            grid = Grid.around(rule, thresholds)
            tables.append(_table(grid, heads, thresholds))
            survival[rule.name] = _survival(grid, heads, thresholds)
    return pl.concat(tables), survival


def _table(grid: Grid, heads: Mapping[str, NDArray[np.float32]], thresholds: ThresholdConfig) -> pl.DataFrame:
    images = len(heads["mass"])
    rows = []
    lowest = grid.at(dict.fromkeys(AXES, 0), thresholds)
    candidate = heads[lowest.event_quantity] >= np.float32(lowest.event_min)  # no other can be an event at any point
    candidates = {name: values[candidate] for name, values in heads.items()}
    for indices in product(*(range(len(values)) for values in grid.values.values())):
        point = dict(zip(AXES, indices, strict=True))
        rule = grid.at(point, thresholds)
        labels = apply(rule, candidates)
        counts = {
            label.name.lower(): float((labels == label).sum()) / images
            for label in (Label.NOP, Label.BROADCAST, Label.OTHER)
        }
        rows.append(
            {
                "rule": rule.name,
                "routed_min": grid.values["routed_min"][point["routed_min"]],
                "event_min": rule.event_min,
                "nop_max": rule.nop_max,
                "broadcast_min": rule.broadcast_min,
                "rank_max": rule.rank_max,
                "steps": sum(point[axis] != grid.home[axis] for axis in AXES),
                "events": sum(counts.values()),
                **counts,
            }
        )
    return pl.DataFrame(rows)


def _survival(
    grid: Grid, heads: Mapping[str, NDArray[np.float32]], thresholds: ThresholdConfig
) -> dict[str, float | None]:
    def labels_at(point: Mapping[str, int]) -> Labels:
        return apply(grid.at(point, thresholds), heads)

    home = labels_at(grid.home)
    event = is_event(home)
    kept = {
        axis: np.all([labels_at(point)[event] == home[event] for point in points], axis=0)
        for axis, points in grid.neighbors().items()
        if points
    }
    kept["all"] = np.all(list(kept.values()), axis=0)
    return {axis: float(same.mean()) if event.any() else None for axis, same in kept.items()}
