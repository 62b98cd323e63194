"""Sensitivity of labels to thresholds: the grid around a rule and survival at its neighbors, on constructed events."""

from itertools import product
from typing import Any

import numpy as np
import polars as pl
import pytest

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.labels import apply
from sinkablate.diagnostics.rules import Label, rules
from sinkablate.diagnostics.sensitivity import AXES, RATIO_STEPS, Grid, sensitivity

T = ThresholdConfig()
RULES = {rule.name: rule for rule in rules(T) if rule.event_steps}
SAFE = {"mass": 0.99, "routed_frac": 1.0, "ratio_out": 1.0, "stable_rank": 1.0, "routed_stable_rank": 1.0}
"""A broadcast by both rules, far from every threshold."""


def events(*changes: dict[str, float], images: int = 1) -> dict[str, Any]:
    """One (image, block, head) per change to a safe broadcast; `routed_frac` changes at every mass level alike."""
    rows = [{"sink_type": 0.0, **SAFE, **change} for change in changes]
    for row in rows:
        row |= {
            f"routed_frac_at_{level:g}": row["routed_frac"]
            for level in T.routed_grid
            if f"routed_frac_at_{level:g}" not in row
        }
    return {name: np.array([row[name] for row in rows], np.float32).reshape(images, 1, -1) for name in rows[0]}


def random_events(seed: int = 0) -> dict[str, Any]:
    """Quantities of 40 images, 5 blocks and 6 heads around every threshold; fewer queries reach a larger mass."""
    generator = np.random.default_rng(seed)
    shape = (40, 5, 6)
    levels = sorted((*T.routed_grid, T.routed_min))
    shares = np.sort(generator.beta(2, 0.7, (len(levels), *shape)), axis=0)[::-1]
    quantities = {
        "mass": generator.random(shape),
        "ratio_out": generator.uniform(0, 1, shape),
        "stable_rank": 1 + generator.exponential(0.5, shape),
        "routed_stable_rank": 1 + generator.exponential(0.4, shape),
        "sink_type": np.zeros(shape),
    }
    quantities |= {
        "routed_frac" if level == T.routed_min else f"routed_frac_at_{level:g}": share
        for level, share in zip(levels, shares, strict=True)
    }
    return {name: values.astype(np.float32) for name, values in quantities.items()}


def survival(heads: dict[str, Any], rule: str = "causal") -> dict[str, float | None]:
    return sensitivity(heads, T)[1][rule]


@pytest.mark.parametrize("name", RULES)
def test_the_grid_surrounds_the_rule(name: str) -> None:
    grid = Grid.around(RULES[name], T)
    assert grid.at(grid.home, T) == RULES[name]
    assert all(tuple(sorted(values)) == values for values in grid.values.values())
    assert set(grid.neighbors()) == set(AXES)
    for axis, points in grid.neighbors().items():
        assert len(points) == 2, f"{name} has a neighbor on both sides along {axis}"
        assert all(sum(point[a] != grid.home[a] for a in AXES) == 1 for point in points)


def test_each_grid_point_reads_the_share_at_its_own_mass() -> None:
    grid = Grid.around(RULES["causal"], T)
    point = grid.home | {"routed_min": 0, "event_min": 0, "ratio": 0, "rank_max": 0}
    rule = grid.at(point, T)
    assert (rule.event_quantity, rule.event_min, rule.rank_max) == ("routed_frac_at_0.3", 0.7, 1.1)
    assert (rule.nop_max, rule.broadcast_min) == (0.1, 0.7)


@pytest.mark.parametrize("name", RULES)
def test_the_home_point_counts_what_the_rule_counts(name: str) -> None:
    heads = random_events()
    home = sensitivity(heads, T)[0].filter((pl.col("rule") == name) & (pl.col("steps") == 0))
    assert home.height == 1
    labels = apply(RULES[name], heads)
    for label in (Label.NOP, Label.BROADCAST, Label.OTHER):
        assert home[label.name.lower()].item() == (labels == label).sum() / 40 > 0
    assert home["events"].item() == pytest.approx(np.isin(labels, (1, 2, 3)).sum() / 40)


@pytest.mark.parametrize("name", RULES)
def test_every_grid_point_equals_an_explicit_loop(name: str) -> None:
    heads, rule = random_events(1), RULES[name]
    table = sensitivity(heads, T)[0].filter(pl.col("rule") == name)
    routed = sorted((*T.routed_grid, T.routed_min))
    least = sorted((*rule.event_steps, rule.event_min))
    assert table.height == len(routed) * len(least) * len(RATIO_STEPS) * 5
    rows = {(row["routed_min"], row["event_min"], row["nop_max"], row["rank_max"]): row for row in table.to_dicts()}
    rank = heads[rule.rank or ""]
    for level, fewest, (nop, broadcast), most in product(routed, least, RATIO_STEPS, (1.1, 1.25, 1.5, 2.0, 3.0)):
        share = heads["routed_frac" if level == T.routed_min else f"routed_frac_at_{level:g}"]
        event = share >= np.float32(fewest)
        is_nop = event & (heads["ratio_out"] <= np.float32(0.2 * nop))
        is_broadcast = event & (heads["ratio_out"] >= np.float32(0.5 * broadcast)) & (rank <= np.float32(most))
        row = rows[level, fewest, 0.2 * nop, most]
        assert (row["events"], row["nop"], row["broadcast"]) == pytest.approx(
            (event.sum() / 40, is_nop.sum() / 40, is_broadcast.sum() / 40)
        )


@pytest.mark.parametrize("axis", ["event_min", "routed_min"])
def test_a_higher_threshold_leaves_fewer_events(axis: str) -> None:
    others = [name for name in ("rule", "routed_min", "event_min", "nop_max", "rank_max") if name != axis]
    table = sensitivity(random_events(2), T)[0].sort(axis)
    falls = table.group_by(others, maintain_order=True).agg(pl.col("events").diff().max())
    assert falls.height > 20
    assert falls["events"].max() <= 0
    assert table["events"].max() > table["events"].min()


@pytest.mark.parametrize("rule", RULES)
def test_events_far_from_every_threshold_survive(rule: str) -> None:
    nop, other = {"ratio_out": 0.01}, {"ratio_out": 0.32}
    worth = survival(events({}, nop, other, {"ratio_out": 1.0, "stable_rank": 9, "routed_stable_rank": 9}), rule)
    assert worth == dict.fromkeys((*AXES, "all"), 1.0)


@pytest.mark.parametrize(
    ("axis", "inside", "outside"),
    [
        ("event_min", {"routed_frac": 0.96}, {"routed_frac": 0.94}),
        ("ratio", {"ratio_out": 0.61}, {"ratio_out": 0.59}),  # broadcast: .5 x 1.2
        ("ratio", {"ratio_out": 0.14}, {"ratio_out": 0.16}),  # NOP: .2 x .75
        ("ratio", {"ratio_out": 0.26}, {"ratio_out": 0.24}),  # other: .2 x 1.25
        ("ratio", {"ratio_out": 0.44}, {"ratio_out": 0.46}),  # other: .5 x .9
        ("rank_max", {"stable_rank": 1.24}, {"stable_rank": 1.26}),
        ("rank_max", {"stable_rank": 2.01}, {"stable_rank": 1.99}),  # other; broadcast at the neighboring threshold
        ("routed_min", {"routed_frac_at_0.6": 0.91}, {"routed_frac_at_0.6": 0.89}),
    ],
)
def test_only_events_beyond_a_neighboring_threshold_are_lost(
    axis: str, inside: dict[str, float], outside: dict[str, float]
) -> None:
    worth = survival(events({}, inside, outside, {}))
    assert worth == {**dict.fromkeys(AXES, 1.0), axis: 0.75, "all": 0.75}


def test_survival_of_all_axes_needs_every_one() -> None:
    worth = survival(events({}, {"routed_frac": 0.93}, {"stable_rank": 1.4}, {"routed_frac": 0.93, "stable_rank": 1.4}))
    assert worth == {"event_min": 0.5, "rank_max": 0.5, "routed_min": 1, "ratio": 1, "all": 0.25}


def test_adaptive_reads_its_own_share_and_rank() -> None:
    worth = survival(events({"routed_frac": 0.5}, {"routed_frac": 0.19}, {"routed_stable_rank": 1.4}), "adaptive")
    assert (worth["event_min"], worth["rank_max"], worth["all"]) == pytest.approx((2 / 3, 2 / 3, 1 / 3))


def test_without_events_survival_is_none_and_counts_are_zero() -> None:
    table, worth = sensitivity(events({"routed_frac": 0.01}, {"routed_frac": 0.02}), T)
    assert worth == {rule: dict.fromkeys((*AXES, "all")) for rule in RULES}
    assert table.select("events", "nop", "broadcast", "other").sum().row(0) == (0, 0, 0, 0)


def test_undefined_labels_are_not_events() -> None:
    table, worth = sensitivity(events({"ratio_out": np.nan}, {}), T)
    assert worth["causal"]["all"] == 1
    assert table.filter(steps=0, rule="causal")["events"].item() == 1


def test_counts_are_per_image() -> None:
    table, _ = sensitivity(events({}, {}, {}, {"routed_frac": 0.01}, images=2), T)
    assert table.filter(steps=0, rule="causal")["broadcast"].item() == 1.5


def test_thresholds_of_a_run_are_the_home_of_its_grid() -> None:
    own = ThresholdConfig(routed_min=0.6, event_min=0.8, rank_max=2.0, routed_grid=(0.5, 0.7))
    grid = Grid.around(rules(own)[0], own)
    assert grid.values["routed_min"] == (0.5, 0.6, 0.7)
    assert grid.values["event_min"] == (0.7, 0.8, 0.95)
    assert grid.at(grid.home, own) == rules(own)[0]
