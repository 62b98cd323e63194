"""The figures of edits: an effect of zero is drawn at a tick labeled 0, and ticks are plain numbers."""

import polars as pl
import pytest

from sinkablate.figures.interventions import edits_by_label, effect_by_ratio

LABELS = {"zero_value": "sink value: zero", "mean_value": "sink value: mean"}


def heads(*effects: float) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "block": 1,
            "head": list(range(len(effects))),
            "edit": "mean_value",
            "class": ["nop", *["broadcast"] * (len(effects) - 1)],
            "ratio_out": [0.1, *[1.0] * (len(effects) - 1)],
            "effect": effects,
            "effect_low": [0.9 * effect for effect in effects],
            "effect_high": [1.1 * effect for effect in effects],
            "counts": 5,
            "local_size": 1.0,
        }
    )


CLASSES = heads(0.02).with_columns(pl.lit("broadcast").alias("class"))


def test_a_zero_effect_is_at_a_tick_labeled_0() -> None:
    figure, _ = edits_by_label(heads(0.0, 0.02, 0.3), CLASSES, LABELS, "final tokens")
    (axis,) = figure.axes
    assert axis.get_xlabel() == "relative change of the final tokens (RMS, without the sink)"
    labels = {tick.get_text(): tick.get_position()[0] for tick in axis.get_xticklabels()}
    assert list(labels)[:3] == ["0", "0.01", "0.1"]
    points = [offset[0] for collection in axis.collections for offset in collection.get_offsets().tolist()]
    assert points == pytest.approx([labels["0"], 0.02, 0.3])
    (strokes,) = [line for line in axis.lines if line.get_label() == "_break"]
    assert all(labels["0"] < position < labels["0.01"] for position in strokes.get_xdata())


def test_an_axis_without_zero_is_not_broken() -> None:
    figure, _ = edits_by_label(heads(0.1, 0.02, 0.3), CLASSES, LABELS, "final tokens")
    assert not [line for line in figure.axes[0].lines if line.get_label() == "_break"]


@pytest.mark.parametrize("effects", [(0.02, 0.3), (0.0, 0.0), (float("nan"), float("nan"))])
def test_the_effects_are_drawn_in_any_range(effects: tuple[float, float]) -> None:
    figure, data = effect_by_ratio(heads(*effects), LABELS, "mean_value", 0.2, 0.5, "final tokens")
    figure.canvas.draw()
    (axis,) = figure.axes
    assert data["effect"].len() == 2
    assert not any("10^" in text.get_text() for text in axis.get_yticklabels())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"NOP", "broadcast", "NOP: ratio ≤ 0.2", "broadcast: ratio ≥ 0.5"} == set(names)
