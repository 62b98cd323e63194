"""The figures of the toys show the numbers that they are given."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from variants import noise

from sinkablate.config import ToyConfig
from sinkablate.figures.formation import formation as formation_of_run
from sinkablate.figures.sinks import TWO_COLUMNS, Drawn, save
from sinkablate.figures.toys import broadcast_toy, formation_against, nop_toy, pathway_arms
from sinkablate.toys.figure_data import alignments, query_key_values, update_values, value_norms, views_of
from sinkablate.toys.formation import formation_points, intervals
from sinkablate.toys.model import build_toy

EDITS = {"zero_value": "sink zeroed", "pathway_zero": "pathway zeroed"}


def nop() -> Drawn:
    model = build_toy(ToyConfig(tokens=6, width=8), 0)
    (view,) = views_of(model, noise(4, 5, 8))
    norms, spectrum = value_norms(view), query_key_values(model)
    tables = [[table.with_columns(model=pl.lit(name)) for name in ("a", "b")] for table in (norms, spectrum)]
    return nop_toy(*(pl.concat(table) for table in tables))


def broadcast() -> Drawn:
    model = build_toy(ToyConfig(task="broadcast", tokens=6, width=8), 0)
    views = views_of(model, noise(4, 6, 8))
    norms, updates = (pl.concat(measure(view) for view in views) for measure in (value_norms, update_values))
    return broadcast_toy(
        [view.weights()[0, 0].numpy() for view in views], norms, alignments(model, torch.eye(8)[0]), updates
    )


def formation() -> Drawn:
    rows = [
        {
            "value": value,
            "seed": seed,
            "step": step,
            "attention": min(1.0, step / (50 + 10 * seed)) * (value < 1),
            "mass": value,
        }
        for value in (0.1, 1.0)
        for seed in (0, 1, 2)
        for step in (0, 4, 24, 44, 64)
    ]
    evaluations = pl.DataFrame(rows)
    points = formation_points(evaluations)
    return formation_against(
        [("gamma", evaluations, intervals(points, "formed_step"), intervals(points, "final_mass"))]
    )


def arms() -> Drawn:
    rows = [
        {"arm": arm, "seed": seed, "edit": edit, "loss": 0.1, "loss_edited": 0.1 * factor}
        for arm, factor in (("none", 20.0), ("pathway", 2.0))
        for seed in (0, 1)
        for edit in (*EDITS, "mean_value")
        if not (arm == "none" and edit == "pathway_zero")
    ]
    return pathway_arms(pl.DataFrame(rows), ["none", "pathway"], EDITS)


@pytest.mark.parametrize("draw", [nop, broadcast, formation, arms])
def test_a_figure_of_the_toys_is_saved_with_its_data_and_labels(draw: object, tmp_path: Path) -> None:
    figure, data = drawn = draw()  # type: ignore[operator]
    save(drawn, tmp_path / "figure")
    assert pl.read_csv(tmp_path / "figure.csv").columns == data.columns
    assert all(axis.get_ylabel() for axis in figure.axes)
    assert figure.get_suptitle()
    assert figure.get_figwidth() == TWO_COLUMNS


def test_the_histogram_counts_every_value_once() -> None:
    figure, data = nop()
    axis = figure.axes[0]
    shares = [sum(patch.get_height() for patch in bars) for bars in axis.containers]
    assert shares == pytest.approx([1, 1])
    assert axis.get_title(loc="left").startswith("A  a")
    spectrum = data.filter((pl.col("model") == "b") & (pl.col("quantity") == "query-key singular value"))["value"]
    assert figure.axes[1].lines[1].get_ydata().tolist() == pytest.approx(spectrum.to_list())


def test_the_spectrum_of_several_seeds_has_a_band() -> None:
    rows = [
        {"model": "a", "seed": seed, "index": index, "value": float(value)}
        for seed, values in (("0", (3, 1)), ("1", (5, 2)))
        for index, value in enumerate(values, 1)
    ]
    norms = pl.DataFrame({"model": "a", "sink": [True, False], "norm": [0.1, 1.0]})
    axis = nop_toy(norms, pl.DataFrame(rows))[0].axes[1]
    assert axis.lines[0].get_ydata().tolist() == [4, 1.5]
    assert set(axis.collections[0].get_paths()[0].vertices[:, 1].tolist()) == {3, 5, 1, 2}


def test_the_csv_of_the_broadcast_toy_holds_all_four_panels() -> None:
    figure, data = broadcast()
    assert [axis.get_ylabel() for axis in figure.axes[:4]][2] == "|cos| with u"
    sizes = dict(data.group_by("panel").len().rows())
    assert sizes["A attention"] == 2 * 6 * 6
    assert sizes["B value norm"] == 2 * 4 * 6
    assert sizes["C alignment with u"] == sizes["D singular value of the update"] + 2 * 2 == 2 * 8
    shown = data.filter(pl.col("panel") == "A attention", pl.col("block") == 1)["value"].to_numpy()
    assert shown.reshape(6, 6).sum(1) == pytest.approx(1)


def test_a_sink_that_never_forms_is_named() -> None:
    figure, data = formation()
    assert figure.axes[1].get_title() == "no sink at gamma = 1: 3 of 3"
    steps = data.filter(pl.col("quantity") == "formed_step")
    assert steps["mean"].to_list() == [pytest.approx((44 + 44 + 44) / 3), None]
    drawn = figure.axes[1].lines[0].get_ydata()
    assert drawn[0] == steps["mean"][0]
    assert np.isnan(drawn[1])


def test_the_first_step_is_shown_on_a_logarithmic_axis() -> None:
    curve = formation()[0].axes[0]
    assert curve.get_xscale() == "log"
    assert curve.lines[0].get_xdata().tolist() == [1, 5, 25, 45, 65]


def test_an_edit_that_an_arm_does_not_have_leaves_a_gap() -> None:
    figure, data = arms()
    bars = [bar for bars in figure.axes[0].containers for bar in bars]
    assert sorted(bar.get_y() + bar.get_height() for bar in bars) == pytest.approx([2, 2, 20])
    assert "mean_value" not in data["edit"].to_list()


def test_the_second_head_of_a_mixed_toy_is_dashed() -> None:
    numbers = {"toy/value_ratio": [1.0, 0.9], "toy/value_ratio/head0": [1.0, 0.9], "toy/value_ratio/head1": [0.8, 0.1]}
    figure, data = formation_of_run(pl.DataFrame({"step": [9, 19], "val/loss": [0.5, 0.2], **numbers}))
    first, second = figure.axes[2].lines
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    assert second.get_ydata().tolist() == [0.8, 0.1]
    assert data.columns == ["step", "val/loss", "toy/value_ratio/head0", "toy/value_ratio/head1"]
