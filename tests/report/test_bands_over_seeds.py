"""Figures with one frame per variant: the seeds of a variant share a frame, in which a band shows their range."""

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from sinkablate.report.edits import edits, notes_on_rules
from sinkablate.report.panels import sensitivity
from sinkablate.report.reading import read_run
from sinkablate.report.run import Run


def edited(name: str, variant: str, *effects: float, kind: str = "run", **config: object) -> Run:
    rows = {"block": 1, "head": range(len(effects)), "edit": "zero_value", "class": "nop", "images": 4}
    ends = {"effect": effects, "effect_low": effects, "effect_high": effects}
    table = pl.DataFrame(rows | ends)
    fields = {"kind": kind, "finished": True, "path": Path(), "config": config, "edits": table}
    return Run(name=name, variant=variant, seed="0", **fields)


def test_the_edits_of_two_seeds_share_a_frame_with_the_range_of_their_medians() -> None:
    drawn = edits([edited("a-s0", "a", 0.1, 0.2, 0.3), edited("a-s1", "a", 0.4, 0.5, 0.6), edited("b-s0", "b", 0.0)])
    assert drawn is not None
    figure, data = drawn
    both, single = figure.axes
    assert (both.get_title(), single.get_title()) == ("a, 2 seeds", "b-s0")
    (bar,) = [line for line in both.lines if line.get_marker() == "|"]
    assert bar.get_xdata().tolist() == pytest.approx([0.2, 0.5])
    assert not [line for line in single.lines if line.get_marker() == "|"]
    assert data["effect"].to_list() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.0]


@pytest.mark.parametrize(
    ("runs", "tokens"),
    [
        ([edited("vit", "a", 0.1)], "final patch tokens"),
        ([edited("toy", "a", 0.1, task="toy")], "final tokens"),
        ([edited("vit", "a", 0.1), edited("toy", "b", 0.1, task="toy")], "final tokens"),
        ([replace(edited("text", "a", 0.1, kind="diagnosis"), summary={"texts": "builtin"})], "final tokens"),
    ],
)
def test_the_axis_names_the_tokens_that_the_models_have(runs: list[Run], tokens: str) -> None:
    drawn = edits(runs)
    assert drawn is not None
    assert drawn[0].get_supxlabel() == f"relative RMS change of the {tokens}"


def test_the_sensitivity_of_two_seeds_is_a_mean_with_a_band(ablated: Path) -> None:
    diagnosed = read_run(ablated / "diagnoses" / "first")
    assert diagnosed.sensitivity is not None
    more = diagnosed.sensitivity.with_columns(pl.col("events", "nop", "broadcast", "other") + 2)
    first = replace(diagnosed, kind="run", name="one")
    drawn = sensitivity([first, replace(first, name="two", sensitivity=more)], "causal")
    alone = sensitivity([first], "causal")
    assert drawn is not None
    assert alone is not None
    axis, single = drawn[0].axes[0], alone[0].axes[0]
    assert "blocks ≥ 1" in drawn[0].get_supylabel()
    toy = replace(first, summary={"counted_blocks": "block 0"})
    other = replace(first, name="two", sensitivity=diagnosed.sensitivity.with_columns(pl.col("rank_max") + 1))
    mixed = sensitivity([toy, other], "causal")
    assert mixed is not None
    assert mixed[0].axes[0].get_title() == f"{first.variant}, 2 seeds (1 of 2: other thresholds)"
    assert "block 0 or blocks ≥ 1" in mixed[0].get_supylabel()
    assert axis.get_title() == f"{first.variant}, 2 seeds"
    for line, of_one in zip(axis.lines[:4], single.lines[:4], strict=True):
        assert line.get_ydata() == pytest.approx(of_one.get_ydata() + 1)
    assert len(axis.collections) == 3
    assert not single.collections
    assert len(drawn[1]) == 2 * len(alone[1])


def test_edits_labeled_by_another_rule_than_that_of_the_report_are_noted_and_named_in_the_title() -> None:
    run = replace(edited("a-s0", "a", 0.1), edits_rule="adaptive")
    assert notes_on_rules([run], "adaptive") == notes_on_rules([edited("b-s0", "b", 0.1)], "causal") == []
    (note,) = notes_on_rules([run], "causal")
    assert "a-s0 are labeled by rule adaptive" in note
    assert "the other figures use rule causal" in note
    drawn = edits([run])
    assert drawn is not None
    (legend,) = drawn[0].legends
    assert legend.get_title().get_text().endswith("a-s0, rule adaptive")
    assert not legend.get_frame_on()
    assert drawn[0].axes[0].get_title() == ""  # not the name once more
