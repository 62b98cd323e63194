"""What `evaluate` writes and prints."""

from pathlib import Path

import polars as pl
import pytest
from evaluating import evaluate, folder_data, numbers, table
from running import assert_refused
from sharing import Once


@pytest.fixture(scope="module")
def evaluated(finished: Path, image_folder: Path, once: Once) -> Path:
    """The nearest neighbors of a small folder of images, with a run."""

    def write(root: Path) -> None:
        outcome = evaluate(root / "out", finished, *folder_data(image_folder)).succeeded()
        (root / "stdout.txt").write_text(outcome.out)
        (root / "stderr.txt").write_text(outcome.err)

    return once("evaluated", write)


def test_an_evaluation_writes_rows_numbers_and_figures(evaluated: Path) -> None:
    out = evaluated / "out"
    names = {path.name for path in out.iterdir()}
    assert names == {"evaluation.json", "evaluation.parquet", "features", "figures"}
    assert {path.name for path in (out / "figures").iterdir()} == {f"evaluation.{x}" for x in ("csv", "pdf", "png")}
    rows = table(out)
    assert rows["value"].is_between(0, 1).all()
    assert set(rows["backbone"]) == {"model", "random", "pixels"}
    first = rows.filter((pl.col("metric") == "acc1") & (pl.col("backbone") == "model"))
    assert first["protocol"].to_list() == ["cls k=20", "cls k=10", "cls k=40"]  # 40 training images
    content = numbers(out)
    assert content["knn/acc1"] == first["value"][0]
    assert content["knn/acc1/cls k=10"] == first["value"][1]
    assert content["seconds"]["knn"] > 0


def test_the_terminal_shows_the_floors_and_what_was_limited(evaluated: Path) -> None:
    shown = (evaluated / "stdout.txt").read_text()
    for phrase in ("random weights", "raw pixels", "cls k=20", "acc5", "results: "):
        assert phrase in shown
    assert "knn.k=200 is limited to the 40 training images" in (evaluated / "stderr.txt").read_text()


def test_a_finished_task_is_not_run_again(evaluated: Path, finished: Path, image_folder: Path) -> None:
    out = evaluated / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} | {"rows": table(out).rows()}
    evaluate(out, finished, *folder_data(image_folder)).succeeded()
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.npy")} | {"rows": table(out).rows()} == before


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--tasks", "knm"), ("there is no task knm; did you mean knn?",)),
        (("--tasks", "knn,knn"), ("named twice",)),
        (("--seeds", "[1,1]"), ("seeds=[1, 1]", "different")),
        (("--knn.k", "[0]"), ("knn.k", "at least 1")),
        (("--knn.k", "[5]"), ("holds an evaluation", "not {'k': [5]", "--overwrite")),
        (("--batch_size", "0"), ("batch_size must be at least 1",)),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    words: tuple[str, ...], phrases: tuple[str, ...], evaluated: Path, finished: Path, image_folder: Path
) -> None:
    before = (evaluated / "out" / "evaluation.json").read_bytes()
    assert_refused(evaluate(evaluated / "out", finished, *folder_data(image_folder), *words), *phrases)
    assert (evaluated / "out" / "evaluation.json").read_bytes() == before
