"""Figure 7 of the paper from the runs of a report: formation against p and gamma."""

from pathlib import Path

import polars as pl
import pytest

from sinkablate.report.run import Run
from sinkablate.report.toy_formation import toy_formation


def toy(value: float, seed: int, formed: int, *, key: str = "p_nop", supervise: str = "output") -> Run:
    steps = [0, 10, 20, 30]
    metrics = {"step": steps, "toy/attention_nop": [1.0 if step >= formed else 0.0 for step in steps], "toy/mass": 0.4}
    config = {"task": "toy", "model.toy.task": "nop", "model.toy.supervise": supervise, f"model.toy.{key}": value}
    fields = {"kind": "run", "variant": "nop", "finished": True, "path": Path()}
    return Run(name=f"{value}-{seed}", seed=str(seed), config=config, metrics=pl.DataFrame(metrics), **fields)


def test_the_step_of_formation_is_shown_against_p_with_intervals_over_seeds() -> None:
    runs = [toy(0.1, 0, 30), toy(0.1, 1, 10), toy(0.9, 0, 10), toy(0.9, 1, 10)]
    drawn = toy_formation([*runs, toy(0.1, 0, 20, key="gamma", supervise="update")])
    assert drawn is not None
    rows = drawn[1].filter(varied="p", quantity="formed_step")
    assert rows.select("value", "runs", "mean").rows() == [(0.1, 2, 20.0), (0.9, 2, 10.0)]
    assert rows["low"][0] < 20 < rows["high"][0]
    assert drawn[1]["varied"].unique().to_list() == ["p"]  # one value of gamma is no curve
    assert drawn[1].filter(quantity="final_mass")["mean"].to_list() == pytest.approx([0.4, 0.4])


def test_runs_of_one_value_give_no_figure() -> None:
    assert toy_formation([toy(0.1, 0, 30), toy(0.1, 1, 10)]) is None
