"""`sweep evaluate` evaluates every finished cell, `collect` adds the numbers, and `compare` reads them."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from evaluating import folder_data
from running import Outcome, assert_refused, run
from sharing import Once
from sweeping import content, opened, root_of, sweep, written

TWO_CELLS = {"model.backbone.registers": {"values": [0, 2]}, "seed_everything": {"value": 0}}
CELLS = TWO_CELLS | {"seed_everything": {"values": [0, 1]}}
"""Parameters of the sweep whose first seed alone is trained."""


def evaluate(path: Path, images: Path, *args: str) -> Outcome:
    """Evaluate the cells of a sweep on a folder of images."""
    return sweep("evaluate", path, *folder_data(images), "--device", "cpu", *args)


def numbers(run_dir: Path) -> Path:
    return run_dir / "evaluation" / "evaluation.json"


@pytest.fixture(scope="module")
def evaluated(image_folder: Path, once: Once) -> Path:
    """Path of a sweep file with four cells, of which two have been trained and evaluated; tests must not change it."""

    def write(root: Path) -> None:
        path = written(root, content(TWO_CELLS))
        sweep("run", path, "--in_process", "--jobs", "1").succeeded()
        written(root, content(CELLS))
        outcome = evaluate(path, image_folder, "--in_process", "--tasks", "knn", "--floors=false").succeeded()
        assert outcome.out.count("evaluated: ") == 2
        assert "small: 2 of 4 cells evaluated, 0 failed" in outcome.out

    return once("evaluated_sweep", write) / "small.yaml"


def copied(evaluated: Path, folder: Path) -> Path:
    """A copy of the sweep that a test may change."""
    shutil.copytree(root_of(evaluated), folder / "cells")
    path = Path(shutil.copy(evaluated, folder))
    for file in root_of(path).glob("*/evaluation/evaluation.json"):  # an evaluation names the path of its weights
        file.write_text(file.read_text().replace(str(root_of(evaluated)), str(root_of(path))))
    return path


def test_collect_adds_the_numbers_of_evaluated_cells(evaluated: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.csv"
    sweep("collect", evaluated, "--results", str(results)).succeeded()
    table = pl.read_csv(results)
    assert table["status"].to_list() == ["done", "todo", "done", "todo"]
    for row in table.to_dicts():
        path = numbers(root_of(evaluated) / row["cell"])
        stored = json.loads(path.read_text()) if row["status"] == "done" else {"protocols": {}}
        assert row["knn/acc1"] == stored.get("knn/acc1")
        assert row["knn/protocol"] == stored["protocols"].get("knn")
    words = ("--metric", "knn/acc1", "--factors", "registers", "--format", "json")
    compared = json.loads(run("compare", results, *words).succeeded().out)
    assert str(compared).count("'lower_is_better': False") == 1


def test_a_repeated_evaluation_keeps_finished_tasks(evaluated: Path, image_folder: Path, tmp_path: Path) -> None:
    path = copied(evaluated, tmp_path)
    cells = [root_of(path) / cell.id for cell in opened(path).cells[::2]]
    before = [(run_dir / "evaluation" / "evaluation.parquet").stat().st_mtime_ns for run_dir in cells]
    failing = numbers(cells[0])
    failing.write_text(failing.read_text().replace('"floors": false', '"floors": true'))
    outcome = evaluate(path, image_folder, "--in_process", "--tasks", "knn", "--floors=false")
    assert outcome.code == 1
    assert f"failed: {cells[0].name} registers=0 s0: error: out={failing.parent} holds an evaluation" in outcome.out
    assert f"evaluated: {cells[1].name} registers=2 s0\n" in outcome.out
    assert [(run_dir / "evaluation" / "evaluation.parquet").stat().st_mtime_ns for run_dir in cells] == before


@pytest.mark.heavy
def test_processes_give_the_numbers_of_one_process(evaluated: Path, image_folder: Path, tmp_path: Path) -> None:
    path = copied(evaluated, tmp_path)
    shutil.rmtree(root_of(path) / opened(path).cells[0].id / "evaluation")
    evaluate(path, image_folder, "--jobs", "2", "--tasks", "knn", "--floors", "false").succeeded()
    for cell in opened(path).cells[::2]:
        one, other = (json.loads(numbers(root_of(each) / cell.id).read_text()) for each in (path, evaluated))
        assert one["knn/acc1"] == other["knn/acc1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"run_id": "0"}, "belongs to another run"), ({"step": 1}, "belongs to the weights at step 1, but the run has 2")],
)
def test_numbers_of_other_weights_are_refused(
    change: dict[str, object], message: str, evaluated: Path, tmp_path: Path
) -> None:
    path = copied(evaluated, tmp_path)
    file = numbers(root_of(path) / opened(path).cells[0].id)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert_refused(sweep("collect", path), f"{file}: {message}", "--overwrite")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--tasks", "knm"), "tasks=knm: there is no task knm"),
        (("--tasks", "knn", "--run", "elsewhere"), "--run"),
        (("--knn.neighbors", "3"), "--knn.neighbors"),
        (("--jobs", "2", "--in_process"), "jobs=2: --in_process"),
        (("--config", "nothing.yaml"), "nothing.yaml"),
        (("--tasks", "knn"), "no cell of this sweep has finished"),
    ],
)
def test_a_sweep_that_cannot_be_evaluated_is_refused(args: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert_refused(sweep("evaluate", written(tmp_path, content()), *args), message)


def test_evaluations_with_test_time_registers_are_rows_of_their_own(
    evaluated: Path, image_folder: Path, tmp_path: Path
) -> None:
    path = copied(evaluated, tmp_path)
    cell = next(cell for cell in opened(path).cells if cell.short_factors["registers"] == "0")
    run_dir = root_of(path) / cell.id
    words = ("--tasks", "knn,sinks", "--floors=false", "--device", "cpu", *folder_data(image_folder), "--sinks.limit=4")
    treatment = ("--test_time_registers", "1", "--register_neurons.top", "3")
    for control, neurons in (((), "3 neurons"), (("--register_neurons.choice", "random"), "3 random neurons")):
        outcome = run("evaluate", "--run", run_dir, *words, *treatment, *control).succeeded()
        assert f"test-time registers: {neurons} in block" in outcome.err
    results = tmp_path / "results.csv"
    sweep("collect", path, "--results", str(results)).succeeded()
    table = pl.read_csv(results, infer_schema_length=None)
    assert len(table) == len(CELLS["model.backbone.registers"]["values"]) * 2 + 2
    rows = table.filter(pl.col("cell") == cell.id)
    assert rows["test_time_registers"].to_list() == ["none", "1", "1 random"]
    assert rows["val/acc1"].null_count() == 2  # of the training, without test-time registers
    assert rows["knn/acc1"].null_count() == 0
    assert rows["sinks/mass_register"].null_count() == 1
    words = ("--metric", "knn/acc1", "--factors", "test_time_registers", "--where", "registers=0", "--format", "json")
    compared = run("compare", results, *words).succeeded().out
    (comparison,) = json.loads(compared)["comparisons"]
    assert [cell["levels"] for cell in comparison["cells"]] == [["none"], ["1"], ["1 random"]]
    assert len(list((run_dir / "evaluation-test_time_registers-1" / "features").iterdir())) == 2
