"""The atlas of a diagnosis and that of a report show the same points: medians over the events of each head."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.rules import rules
from sinkablate.figures.atlas import RANKS, VALUES, atlas, atlas_points, least_events

RULES = {rule.name: rule for rule in rules(ThresholdConfig())}
LIMITS = RULES["causal"].limits
EVENTS = {"nop": (0, 9, 0, 2), "broadcast": (8, 0, 0, 0), "other": (0, 0, 0, 0)}
"""Label -> events of four heads on ten images: a broadcast head in block 0, a NOP head, no event, too few events."""


def heads(images: int = 10, rule: str = "causal") -> pl.DataFrame:
    medians = {
        "ratio_out": 0.6,
        "ratio_head": 0.7,
        "sink_head_norm": 3.0,
        "stable_rank": 1.4,
        "routed_stable_rank": 1.1,
    }
    return pl.DataFrame(
        {
            "block": [0, 1, 1, 1],
            "head": [0, 0, 1, 2],
            "images": images,
            "token_type": "cls",
            **{f"{rule}_{label}": counts for label, counts in EVENTS.items()},
            **{f"median_{name}": value for name, value in medians.items()},
            **{f"{rule}_event_median_{name}": value / 10 for name, value in medians.items()},
        }
    )


def test_a_head_without_enough_events_has_no_label_and_is_at_medians_over_all_images() -> None:
    points = atlas_points(heads(), "causal", LIMITS)
    assert points["label"].to_list() == ["broadcast", "nop", "none", "none"]
    assert points["min_events"].unique().to_list() == [5]
    assert points["ratio_out"].to_list() == pytest.approx([0.06, 0.06, 0.6, 0.6])
    assert points["stable_rank"].to_list() == pytest.approx([0.14, 0.14, 1.4, 1.4])
    assert atlas_points(heads(), "causal", LIMITS, 1)["label"].to_list() == ["broadcast", "nop", "none", "nop"]


@pytest.mark.parametrize(("images", "least"), [(1, 1), (8, 4), (99, 49), (100, 50), (5000, 50)])
def test_the_least_number_of_events(images: int, least: int) -> None:
    assert least_events(images) == least


def test_the_atlas_draws_its_data_with_the_rank_across_and_block_0_hollow() -> None:
    points = atlas_points(heads(), "causal", LIMITS, 1)
    figure, data = atlas({"model": [points]}, "causal", {"model": LIMITS})
    panels = figure.axes[: len(VALUES)]
    for axis, value in zip(panels, VALUES, strict=True):
        drawn = np.concatenate([collection.get_offsets() for collection in axis.collections])
        assert sorted(map(tuple, drawn.tolist())) == sorted(data.select("stable_rank", value).rows())
        assert (axis.get_xscale(), axis.get_ylabel()) == ("log", VALUES[value])
        hollow = [not len(collection.get_facecolors()) for collection in axis.collections]
        assert hollow == [block == 0 for block in (0, 1, 1)]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"NOP", "broadcast", "block 0 (hollow)"} <= set(texts)
    assert "≥ 1 events" in panels[0].get_title(loc="left")
    assert figure.get_suptitle().endswith("model, rule causal")


@pytest.mark.parametrize(
    ("rule", "rank", "ratio"),
    [
        ("causal", "stable_rank", "ratio_out"),
        ("adaptive", "routed_stable_rank", "ratio_out"),
        ("lejepa", "stable_rank", "ratio_head"),
    ],
)
def test_the_atlas_of_a_rule_shows_what_the_rule_decides_by_with_its_own_limits(
    rule: str, rank: str, ratio: str
) -> None:
    limits = replace(RULES[rule], nop_max=0.1, broadcast_min=0.7, rank_max=1.3).limits
    figure, data = atlas({"model": [atlas_points(heads(rule=rule), rule, limits, 1)]}, rule, {"model": limits})
    assert [name for name in RANKS if name in data.columns] == [rank]
    for axis, value in zip(figure.axes[: len(VALUES)], VALUES, strict=True):
        assert axis.get_xlabel().replace("\n", " ") == RANKS[rank]
        drawn = np.concatenate([collection.get_offsets() for collection in axis.collections])
        assert sorted(map(tuple, drawn.tolist())) == sorted(data.select(rank, value).rows())
        lines = [(x[0], y[0]) for x, y in (line.get_data() for line in axis.lines)]
        upright = [] if rule == "lejepa" else [(1.3, 0)]
        assert lines == upright + ([(0, 0.1), (0, 0.7)] if value == ratio else [])
    keys = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("broadcast: rank at most" in keys) == (rule != "lejepa")


def test_a_registered_rule_adds_its_own_quantities_to_the_atlas() -> None:
    limits = replace(RULES["causal"], ratio="gated_ratio_out", rank="gated_stable_rank").limits
    table = heads().with_columns(
        pl.lit(value).alias(f"{prefix}{name}")
        for prefix in ("median_", "causal_event_median_")
        for name, value in (("gated_ratio_out", 0.3), ("gated_stable_rank", 1.2))
    )
    figure, data = atlas({"model": [atlas_points(table, "causal", limits, 1)]}, "causal", {"model": limits})
    last = figure.axes[len(VALUES)]
    assert (last.get_xlabel(), last.get_ylabel()) == ("gated_stable_rank", "gated_ratio_out")
    assert len(last.lines) == 3
    assert data["gated_stable_rank"].to_list() == [1.2] * 4


def test_a_table_without_the_rank_of_the_rule_shows_the_stable_rank_without_a_line() -> None:
    limits = RULES["adaptive"].limits
    table = heads(rule="adaptive").drop("adaptive_event_median_routed_stable_rank")
    figure, data = atlas({"model": [atlas_points(table, "adaptive", limits, 1)]}, "adaptive", {"model": limits})
    assert figure.axes[0].get_xlabel().replace("\n", " ") == RANKS["stable_rank"]
    assert len(figure.axes[0].lines) == 2
    assert "routed_stable_rank" not in data.columns


def test_variants_are_rows_on_one_color_scale() -> None:
    points = atlas_points(heads(), "causal", LIMITS, 1)
    figure, data = atlas(
        {"before": [points], "after": [points, points]}, "causal", dict.fromkeys(("before", "after"), LIMITS)
    )
    assert data["variant"].to_list() == ["before"] * 4 + ["after"] * 8
    assert len([axis for axis in figure.axes if axis.get_label() != "<colorbar>"]) == 2 * len(VALUES)
    assert figure.get_figwidth() == 6.75
