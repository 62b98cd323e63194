"""A cell is the same run whoever starts it: `fit`, a sweep with a process per cell, or one that trains in its own."""

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
    """The keys of the Trainer."""
    parser = LightningParser(parser_mode="omegaconf+")
    parser.add_lightning_class_args(L.Trainer, "trainer")
    return parser


EITHER = (
    "limit_train_batches",
    "limit_val_batches",
    "limit_test_batches",
    "limit_predict_batches",
    "overfit_batches",
    "val_check_interval",
    "gradient_clip_val",
)


def test_these_are_all_keys_of_the_trainer_that_take_either_number(trainer: LightningParser) -> None:
    found = [
        action.dest.removeprefix("trainer.")
        for action in trainer._actions
        if {int, float} <= set(get_args(getattr(action, "_typehint", None)))
    ]
    assert set(found) == set(EITHER)


@pytest.mark.parametrize("key", EITHER)
def test_a_number_is_an_int_or_a_float_as_it_is_written(key: str, trainer: LightningParser) -> None:
    for word, value in (("1", 1), ("1.0", 1.0), ("0.25", 0.25), ("3", 3)):
        parsed = trainer.parse_args([f"--trainer.{key}", word]).trainer[key]
        assert (type(parsed), parsed) == (type(value), value)


class FloatFirst:
    """A class whose keys take either number; unions written with | keep their order."""

    def __init__(self, one: float | int | None = None, other: float | str | int = 0.5) -> None: ...


@pytest.mark.parametrize("key", ["one", "other"])
def test_the_order_of_a_union_does_not_matter(key: str) -> None:
    parser = LightningParser(parser_mode="omegaconf+")
    parser.add_class_arguments(FloatFirst, "x")
    parser.add_argument("--x.single", type=float | int)
    for name in (key, "single"):
        found = [parser.parse_args([f"--x.{name}={word}"]).x[name] for word in ("1", "1.0")]
        assert [type(value) for value in found] == [int, float]


def test_other_types_stay_as_they_are() -> None:
    for hint in (int, float, float | None, str | int, list[float]):
        assert int_first(hint) is hint


def test_a_cell_in_this_process_has_the_threads_of_one_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with threads_of_a_cell():
            assert (torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]) == (1, "1")
        assert torch.get_num_threads() == 3
        assert "OMP_NUM_THREADS" not in os.environ
        monkeypatch.setenv("OMP_NUM_THREADS", "3")  # the user's word wins
        with threads_of_a_cell():
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def record(run_dir: Path) -> dict[str, Any]:
    """What a run says of itself, less where it is and how long it took."""
    summary = json.loads((run_dir / "summary.json").read_text())
    return {
        "config": (run_dir / "config.yaml").read_text().replace(str(run_dir), "RUN"),
        "metrics": (run_dir / "metrics.csv").read_bytes(),
        "summary": {key: value for key, value in summary.items() if key not in TIMED},
    }


@pytest.mark.heavy
def test_three_ways_to_train_a_cell_leave_the_same_record(tmp_path: Path) -> None:
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
    for way in (path, same):
        assert record(root_of(way) / cell.id) == expected
