"""Every figure shows the numbers it is given, and says what its axes are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from variants import make, noise

from sinkablate.config import AttentionConfig, ThresholdConfig
from sinkablate.diagnostics.probe import probe
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.rules import rule_named
from sinkablate.diagnostics.sensitivity import sensitivity as sensitivity_table
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.figures.atlas import atlas, atlas_points
from sinkablate.figures.blocks import handoff, location_entropy, token_norms, with_types
from sinkablate.figures.frequency import frequency
from sinkablate.figures.sensitivity import sensitivity
from sinkablate.figures.sinks import Drawn, new_axes, plain_log, save

T = ThresholdConfig(adaptive_min=0.01, routed_min=0.2, event_min=0.05, routed_grid=(0.1, 0.3))
"""An untrained model has events under thresholds this low."""
LIMITS = rule_named("causal", T).limits


@pytest.fixture(scope="module")
def records() -> Records:
    model = make(registers=2, attention=AttentionConfig(gate="headwise"))
    for block in model.blocks:
        block.attn.qkv.weight.data.mul_(8)
    return probe(model, noise(6, 1, 28, 28), np.arange(6), T)[0]


FIGURES: dict[str, Callable[[Records], Drawn]] = {
    "handoff": lambda r: handoff({"model": [typed(r)]}, "causal"),
    "frequency": lambda r: frequency({"model": [head_table(r, T)]}, "causal"),
    "entropy": lambda r: location_entropy({"model": [head_table(r, T)]}),
    "atlas": lambda r: atlas(
        {"model": [atlas_points(head_table(r, T), "causal", LIMITS, 2)]}, "causal", {"model": LIMITS}
    ),
    "token_norms": lambda r: token_norms({"model": [typed(r)]}),
    "sensitivity": lambda r: sensitivity(sensitivity_table(r.heads, T)[0]),
}


def typed(records: Records) -> pl.DataFrame:
    return with_types(block_table(records, T), records.layout.counts, records.heads["sink_type"])


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_saved_with_its_data_and_labels(name: str, records: Records, tmp_path: Path) -> None:
    figure, data = drawn = FIGURES[name](records)
    save(drawn, tmp_path / name)
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert pl.read_csv(tmp_path / f"{name}.csv").columns == data.columns
    axes = [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]
    assert all(axis.get_xlabel() for axis in axes)
    assert axes[0].get_ylabel()
    assert any(axis.lines or axis.images or axis.collections for axis in axes)
    assert figure.get_suptitle()
    assert all(axis.get_legend() is None for axis in axes), "a legend covers the data"
    assert figure.get_figwidth() in (3.25, 6.75)


def test_the_handoff_shows_the_types_that_occur_and_their_shares_add_up(records: Records) -> None:
    figure, data = FIGURES["handoff"](records)
    solid = [line.get_label() for line in figure.axes[0].lines if line.get_linestyle() == "-"]
    assert solid == ["cls", "register", "patch"]
    shares = data.filter(panel="dominant").group_by("block").agg(pl.col("mean").sum())["mean"]
    assert shares.to_list() == pytest.approx([1.0] * 2)


def test_the_fonts_of_a_pdf_are_truetype(records: Records, tmp_path: Path) -> None:
    save(FIGURES["token_norms"](records), tmp_path / "figure")
    content = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_the_sensitivity_figure_passes_through_the_rule_itself(records: Records) -> None:
    table, _ = sensitivity_table(records.heads, T)
    figure, _ = sensitivity(table)
    home = table.filter(pl.col("steps") == 0)["events"].to_list()
    assert len(figure.axes) == 4 * len(home)
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()][2] == "0.2\n0.5"
    for number, axis in enumerate(figure.axes):
        at = axis.lines[-1].get_xdata()[0]
        events = dict(zip(axis.lines[0].get_xdata().tolist(), axis.lines[0].get_ydata().tolist(), strict=True))
        assert events[at] == home[number // 4]


@pytest.mark.parametrize("values", [(3.1, 6.2), (0.02, 0.5), (1, 30000), (1.0, 1.02), (1e-5, 2)])
def test_logarithmic_ticks_are_plain_numbers(values: tuple[float, float]) -> None:
    figure, (axis,) = new_axes(1, 1, (3, 3))
    axis.plot([0, 1], values)
    plain_log(axis)
    figure.canvas.draw()
    low, high = axis.get_ylim()
    texts = [text.get_text() for text in axis.get_yticklabels() if low <= text.get_position()[1] <= high]
    assert texts
    assert all(float(text.replace("\N{MINUS SIGN}", "-")) > 0 for text in texts)
