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
from sinkablate.diagnostics.sensitivity import sensitivity as sensitivity_table
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.figures.diagnosis import atlas, frequency, handoff, sensitivity, token_norms
from sinkablate.figures.sinks import TYPE_COLORS, Drawn, draw_by_type, new_axes, plain_log, save

RULES = ("causal", "adaptive")
LIMITS = {"nop_max": 0.2, "broadcast_min": 0.5, "rank_max": 1.5}
T = ThresholdConfig(adaptive_min=0.01, routed_min=0.2, event_min=0.05, routed_grid=(0.1, 0.3))
"""An untrained model has events under thresholds this low."""


@pytest.fixture(scope="module")
def records() -> Records:
    model = make(registers=2, attention=AttentionConfig(gate="headwise"))
    for block in model.blocks:
        block.attn.qkv.weight.data.mul_(8)
    return probe(model, noise(6, 1, 28, 28), np.arange(6), T)[0]


FIGURES: dict[str, Callable[[Records], Drawn]] = {
    "handoff": lambda r: handoff(block_table(r, T), RULES),
    "frequency": lambda r: frequency(head_table(r, T), RULES),
    "atlas": lambda r: atlas(head_table(r, T), "causal", 2, LIMITS),
    "token_norms": lambda r: token_norms(block_table(r, T)),
    "sensitivity": lambda r: sensitivity(sensitivity_table(r.heads, T)[0]),
}


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
    assert figure.get_figwidth() <= 8


def test_the_handoff_shows_the_types_that_occur(records: Records) -> None:
    figure, data = handoff(block_table(records, T), RULES)
    assert [line.get_label() for line in figure.axes[0].lines] == ["cls", "register", "patch"]
    shown = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].lines}
    assert shown["register"] == data["mass_register"].to_list()
    shares = data.select(pl.sum_horizontal("mass_cls", "mass_register", "mass_patch")).to_series()
    assert shares.to_list() == pytest.approx([1.0] * len(data), abs=1e-5)


def test_the_atlas_leaves_no_head_out(records: Records) -> None:
    table = head_table(records, T)
    figure, data = atlas(table, "causal", 6, LIMITS)
    points = sum(len(collection.get_offsets()) for collection in figure.axes[0].collections)
    assert points == len(table) == len(data)
    assert 0 < sum(data["events"] >= 6) < points


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


def test_the_atlas_gives_no_label_to_a_head_without_events(records: Records) -> None:
    table = head_table(records, T).with_columns(
        pl.when(pl.col("head") > 0).then(pl.col(f"causal_{label}")).otherwise(0).alias(f"causal_{label}")
        for label in ("nop", "broadcast", "other")
    )
    _, data = atlas(table, "causal", 1, LIMITS)
    assert set(data.filter(events=0)["label"]) == {"none"}
    assert "none" not in set(data.filter(pl.col("events") > 0)["label"])


def test_a_null_token_is_not_called_a_register(records: Records) -> None:
    blocks = block_table(records, T)
    _, (axis,) = new_axes(1, 1, (3, 3))
    draw_by_type(axis, blocks, "mass_", names={"register": "null token"})
    colors = {line.get_label(): line.get_color() for line in axis.lines}
    assert list(colors) == ["cls", "null token", "patch"]
    assert colors["null token"] == TYPE_COLORS["null"]


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
