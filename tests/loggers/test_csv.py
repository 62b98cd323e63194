"""`metrics.csv` has one row per step and a column per metric; an existing file is appended to."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only

from sinkablate.loggers.csv import MetricsCsv


def rows(root: Path) -> list[dict[str, str]]:
    """Rows of the file without empty cells."""
    with (root / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]


def header(root: Path) -> list[str]:
    """Column names of the file."""
    return (root / "metrics.csv").read_text().splitlines()[0].split(",")


def written(root: Path, *logged: tuple[dict[str, Any], int | None]) -> list[dict[str, str]]:
    """Log values at steps with a new logger, close it and read the file."""
    logger = MetricsCsv(str(root))
    for values, step in logged:
        logger.log_metrics(values, step)
    logger.finalize("success")
    return rows(root)


def test_values_of_one_step_share_a_row(tmp_path: Path) -> None:
    table = written(tmp_path, ({"a": 1.0}, 0), ({"b": 2.0}, 0), ({"a": 3.0}, 1), ({"b": 4.0}, 1))
    assert table == [{"step": "0", "a": "1.0", "b": "2.0"}, {"step": "1", "a": "3.0", "b": "4.0"}]


def test_the_last_value_of_a_metric_is_kept(tmp_path: Path) -> None:
    assert written(tmp_path, ({"a": 1.0}, 0), ({"a": 2.0}, 0)) == [{"step": "0", "a": "2.0"}]


def test_numbers_keep_their_precision(tmp_path: Path) -> None:
    values = [0.1, 1e-30, 3.0000001, 1 / 3, -1e17]
    table = written(tmp_path, *(({"a": value}, step) for step, value in enumerate(values)))
    assert [float(row["a"]) for row in table] == values


def test_a_step_that_is_logged_late_goes_into_its_row(tmp_path: Path) -> None:
    """Lightning logs the loss of step 0 after the measurement that follows the step and is numbered 1."""
    table = written(
        tmp_path, ({"sink": 0.0}, 0), ({"sink": 1.0}, 1), ({"loss": 5.0}, 0), ({"sink": 2.0}, 2), ({"loss": 4.0}, 1)
    )
    assert table == [
        {"step": "0", "sink": "0.0", "loss": "5.0"},
        {"step": "1", "sink": "1.0", "loss": "4.0"},
        {"step": "2", "sink": "2.0"},
    ]


def test_complete_rows_are_on_disk_at_once(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    for step in range(5):
        logger.log_metrics({"a": float(step)}, step)
        logger.save()
        assert step < 2 or [row["step"] for row in rows(tmp_path)] == [str(s) for s in range(step - 1)]


def test_a_new_metric_adds_a_column(tmp_path: Path) -> None:
    table = written(tmp_path, ({"a": 0.0}, 0), ({"a": 1.0}, 1), ({"b": 2.0}, 5), ({"c": 3.0, "a": 4.0}, 9))
    assert header(tmp_path) == ["step", "a", "b", "c"]
    assert [row["step"] for row in table] == ["0", "1", "5", "9"]
    assert table[0] == {"step": "0", "a": "0.0"}
    assert table[3] == {"step": "9", "a": "4.0", "c": "3.0"}
    assert not list(tmp_path.glob("*.partial"))


def test_an_existing_file_is_appended_to(tmp_path: Path) -> None:
    before = written(tmp_path, ({"a": 0.0}, 0), ({"b": 1.0}, 1))
    after = written(tmp_path, ({"b": 2.0}, 2), ({"c": 3.0}, 3))
    assert after == [*before, {"step": "2", "b": "2.0"}, {"step": "3", "c": "3.0"}]
    assert header(tmp_path) == ["step", "a", "b", "c"]


@pytest.mark.parametrize("step", range(6))
def test_rewinding_removes_later_rows_and_reopens_the_row_of_the_step(step: int, tmp_path: Path) -> None:
    logged = [({"loss": float(s), "sink": 10.0 + s}, s) for s in range(4)]
    before = written(tmp_path, *logged)
    logger = MetricsCsv(str(tmp_path))
    logger.rewind(step)
    assert rows(tmp_path) == before[:step]
    logger.log_metrics({"loss": 99.0}, step)
    logger.finalize("success")
    reopened = before[step] if step < 4 else {"step": str(step)}
    assert rows(tmp_path) == [*before[:step], reopened | {"loss": "99.0"}]


def test_rewinding_keeps_the_row_of_the_step(tmp_path: Path) -> None:
    before = written(tmp_path, *(({"a": float(s)}, s) for s in range(4)))
    logger = MetricsCsv(str(tmp_path))
    logger.rewind(2)
    logger.finalize("success")
    assert rows(tmp_path) == before[:3]


def test_rewinding_without_a_file_does_nothing(tmp_path: Path) -> None:
    MetricsCsv(str(tmp_path / "none")).rewind(3)
    assert not (tmp_path / "none").exists()


def test_nothing_logged_writes_nothing(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path / "none"))
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert not (tmp_path / "none").exists()


@pytest.fixture
def second_rank() -> Iterator[None]:
    """Make this process count as the second of several."""
    rank = rank_zero_only.rank  # type: ignore[attr-defined]
    rank_zero_only.rank = 1  # type: ignore[attr-defined]
    yield
    rank_zero_only.rank = rank  # type: ignore[attr-defined]


@pytest.mark.usefixtures("second_rank")
def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    logger.log_metrics({"a": 1.0}, 0)
    logger.rewind(0)
    logger.finalize("success")
    assert not list(tmp_path.iterdir())


def test_every_row_is_on_disk_after_a_checkpoint_and_can_still_be_extended(tmp_path: Path) -> None:
    logger = MetricsCsv(str(tmp_path))
    for step in range(3):
        logger.log_metrics({"a": float(step)}, step)
    logger.after_save_checkpoint(None)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]
    logger.log_metrics({"b": 5.0}, 1)
    logger.log_metrics({"b": 6.0}, 2)
    logger.log_metrics({"a": 3.0}, 3)
    logger.finalize("success")
    assert rows(tmp_path) == [
        {"step": "0", "a": "0.0"},
        {"step": "1", "a": "1.0", "b": "5.0"},
        {"step": "2", "a": "2.0", "b": "6.0"},
        {"step": "3", "a": "3.0"},
    ]
