"""Figures over the blocks of a model: shares, chance levels, bands over the runs of a variant."""

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.blocks import band, handoff, location_entropy, token_norms, with_types
from sinkablate.figures.frequency import frequency
from sinkablate.figures.sinks import TYPE_COLORS

TOKENS = {"cls": 1, "patch": 256}
DOMINANT = np.array([[[0, 0], [0, 2]], [[0, 0], [2, 2]]], np.int8)
"""Two images, two blocks, two heads: CLS dominates block 0, and one head in four in block 1."""


def blocks(shift: float = 0.0) -> pl.DataFrame:
    table = pl.DataFrame(
        {
            "block": [0, 1],
            "mass_cls": [0.2 + shift, 0.1 + shift],
            "mass_patch": [0.8 - shift, 0.9 - shift],
            "mass_register": [float("nan")] * 2,
            "events_causal_cls": [float("nan"), 0.25],
            "events_causal_patch": [float("nan"), 0.75],
            "norm_cls_median": [2.0, 3.0 + shift],
            "norm_cls_p99": [3.0, 4.0],
            "norm_patch_median": [1.0, 2.0],
            "norm_patch_p99": [1.5, 20.0],
        }
    )
    return with_types(table, TOKENS, DOMINANT)


def test_the_share_of_dominant_columns_is_counted_over_images_and_heads() -> None:
    table = blocks()
    assert table["dominant_cls"].to_list() == [1, 0.25]
    assert table["dominant_patch"].to_list() == [0, 0.75]
    assert table["chance_cls"].to_list() == pytest.approx([1 / 257] * 2)
    assert table["relative_mass_cls"].to_list() == pytest.approx([0.2 * 257, 0.1 * 257])
    assert "chance_register" not in table.columns
    stored = table.with_columns(dominant_cls=pl.lit(0.5))
    assert with_types(stored, TOKENS, DOMINANT)["dominant_cls"].to_list() == [0.5, 0.5]


def test_the_handoff_shows_dominant_columns_with_chance_events_and_mass_per_token() -> None:
    figure, data = handoff({"model": [blocks()]}, "causal")
    dominant, events, mass = figure.axes
    drawn = {line.get_label(): list(line.get_ydata()) for line in dominant.lines}
    assert drawn == {
        "cls": [1, 0.25],
        "cls, chance": [1 / 257] * 2,
        "patch": [0, 0.75],
        "patch, chance": [256 / 257] * 2,
    }
    assert [list(line.get_ydata())[1] for line in events.lines] == [0.25, 0.75]
    assert mass.get_yscale() == "log"
    for series in ("cls", "patch"):
        shown = data.filter(panel="dominant", series=series)["mean"].to_list()
        assert shown == drawn[series]
    assert figure.get_suptitle().endswith("model, rule causal")


def test_the_runs_of_a_variant_share_a_line_with_a_band() -> None:
    values = band([blocks(), blocks(0.2)], "mass_cls")
    assert (values.mean.tolist(), values.low.tolist()) == (pytest.approx([0.3, 0.2]), pytest.approx([0.2, 0.1]))
    figure, data = handoff({"two seeds": [blocks(), blocks(0.2)], "one": [blocks()]}, "causal")
    assert set(data["runs"]) == {1, 2}
    bands = [len(axis.collections) for axis in figure.axes]
    assert bands == [0, 0, 2, 0, 0, 0]  # only the mass differs, and only a variant with two runs has a band


def test_a_null_token_is_not_called_a_register() -> None:
    table = blocks().with_columns(mass_register=pl.lit(0.5), dominant_register=pl.lit(0.1))
    figure, _ = handoff({"toy": [table]}, "adaptive", {"toy": {"register": "null token"}})
    colors = {line.get_label(): line.get_color() for line in figure.axes[0].lines}
    assert colors["null token"] == TYPE_COLORS["null"]
    assert "register" not in colors


def test_token_norms_have_plain_logarithmic_ticks() -> None:
    figure, data = token_norms({"model": [blocks()]})
    (axis,) = figure.axes
    assert (axis.get_yscale(), figure.get_figwidth()) == ("log", 3.25)
    assert data.filter(panel="p99", series="patch")["mean"].to_list() == [1.5, 20]


def heads(*frequencies: float) -> pl.DataFrame:
    count = len(frequencies) // 2
    return pl.DataFrame(
        {
            "block": np.repeat([0, 1], count),
            "head": np.tile(np.arange(count), 2),
            "causal_frequency": frequencies,
            "location_entropy": np.linspace(0, 1, 2 * count),
        }
    )


def test_the_heads_of_several_runs_are_sorted_before_they_are_averaged() -> None:
    one, other = heads(0.1, 0.9, 0.0, 0.0), heads(0.7, 0.1, 0.0, 0.2)
    _, single = frequency({"run": [one]}, "causal")
    assert single["frequency"].to_list() == [0.1, 0.9, 0.0, 0.0]
    figure, both = frequency({"variant": [one, other]}, "causal")
    assert both["frequency"].to_list() == pytest.approx([0.8, 0.1, 0.1, 0.0])
    assert figure.axes[0].get_xlabel() == "heads, sorted by frequency"


def test_the_entropy_of_a_block_is_the_mean_over_its_heads() -> None:
    figure, data = location_entropy({"model": [heads(0, 0, 0, 0)]})
    assert data["mean"].to_list() == pytest.approx([1 / 6, 5 / 6])
    assert list(figure.axes[0].lines[-1].get_ydata()) == data["mean"].to_list()
