"""A cell gives the same result from `fit`, from a sweep with one process per cell, and from a sweep in one process."""

import json
import os
from pathlib import Path
from typing import Any, get_args

import lightning as L
import pytest
import torch
from running import run
from sweeping import content, opened, root_of, spawned, written

from sinkablate.cli.lightning import LightningParser
from sinkablate.cli.parser import int_first
from sinkablate.sweep.in_process import threads_of_a_cell

TIMED = ("wall_seconds", "images_per_second", "peak_memory_gib")


@pytest.fixture(scope="module")
def trainer() -> LightningParser:
    """A parser with the keys of the Trainer."""
    parser = LightningParser(parser_mode="omegaconf+")
    parser.add_lightning_class_args(L.Trainer, "trainer")
    return parser


INT_OR_FLOAT = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "limit_predict_batches",
    "overfit_batches",
    "val_check_interval",
    "gradient_clip_val",
)


def test_the_list_of_keys_that_accept_int_and_float_is_complete(trainer: LightningParser) -> None:
    values = [
        action.dest.removeprefix("trainer.")
        for action in trainer._actions
        if {int, float} <= set(get_args(getattr(action, "_typehint", None)))
    ]
    assert set(values) == set(INT_OR_FLOAT)


@pytest.mark.parametrize("key", INT_OR_FLOAT)
def test_the_spelling_of_a_number_decides_between_int_and_float(key: str, trainer: LightningParser) -> None:
    for word, value in (("1", 1), ("1.0", 1.0), ("0.25", 0.25), ("3", 3)):
        parsed = trainer.parse_args([f"--trainer.{key}", word]).trainer[key]
        assert (type(parsed), parsed) == (type(value), value)


class FloatFirst:
    """A class whose keys accept int and float, with float first in the union."""

    def __init__(self, one: float | int | None = None, other: float | str | int = 0.5) -> None: ...


@pytest.mark.parametrize("key", ["one", "other"])
def test_the_order_of_a_union_does_not_matter(key: str) -> None:
    parser = LightningParser(parser_mode="omegaconf+")
    parser.add_class_arguments(FloatFirst, "x")
    parser.add_argument("--x.single", type=float | int)
    for name in (key, "single"):
        values = [parser.parse_args([f"--x.{name}={word}"]).x[name] for word in ("1", "1.0")]
        assert [type(value) for value in values] == [int, float]


def test_other_types_are_not_changed() -> None:
    for hint in (int, float, float | None, str | int, list[float]):
        assert int_first(hint) is hint


def test_a_cell_in_this_process_uses_as_many_threads_as_a_separate_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_of_a_cell():
            assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
        assert torch.get_num_threads() == 3
        assert "OMP_NUM_THREADS" not in os.environ
        monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the variable of the user takes precedence
        with threads_of_a_cell():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def record(run_dir: Path) -> dict[str, Any]:
    """Record of a run without its location and its duration."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {
        "config": (run_dir / "config.yaml").read_text().replace(str(run_dir), "RUN"),
        "metrics": (run_dir / "metrics.csv").read_bytes(),
        "summary": {key: value for key, value in summary.items() if key not in TIMED},
    }


@pytest.mark.heavy
def test_three_ways_to_train_a_cell_give_the_same_record(tmp_path: Path) -> None:
    (tmp_path / "processes").mkdir()
    (tmp_path / "one").mkdir()
    path = written(tmp_path / "processes", content({"model.backbone.registers": {"value": 2}}))
    same = written(tmp_path / "one", content({"model.backbone.registers": {"value": 2}}))
    [cell] = opened(path).cells
    spawned("run", path, "--jobs", "1").succeeded()
    spawned("run", same, "--jobs", "1", "--in_process").succeeded()
    run("fit", *cell.words, "--sweep", "small", "--run_dir", tmp_path / "fit").succeeded()
    expected = record(tmp_path / "fit")
    assert "limit_val_batches: 1\n" in expected["config"]
    for sweep_path in (path, same):
        assert record(root_of(sweep_path) / cell.id) == expected
