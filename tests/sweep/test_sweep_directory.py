"""Files in the directory of a sweep: damaged ones are named; cells with different numbers of threads are noted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from running import ROOT, assert_refused
from sweeping import content, opened, root_of, sweep, written

from sinkablate.sweep.state import DONE


def cells_of(path: Path) -> list[Path]:
    """Directories of the cells of a sweep file."""
    return [root_of(path) / cell.id for cell in opened(path).cells]


def sweep_file(name: str, text: bytes) -> Callable[[Path], None]:
    """A function that writes a file into the directory of a sweep."""

    def make(path: Path) -> None:
        root_of(path).mkdir()
        (root_of(path) / name).write_bytes(text)

    return make


def cell_files(name: str, text: str) -> Callable[[Path], None]:
    """A function that writes a file into the directory of every cell."""

    def make(path: Path) -> None:
        for run_dir in cells_of(path):
            run_dir.mkdir(parents=True)
            (run_dir / DONE).touch()
            (run_dir / name).write_text(text)

    return make


def file_as_root(path: Path) -> None:
    """Create a file in place of the directory of the sweep."""
    root_of(path).touch()


def files_as_cells(path: Path) -> None:
    """Create files in place of the directories of cells."""
    root_of(path).mkdir()
    for run_dir in cells_of(path):
        run_dir.touch()


def folder_as_marker(path: Path) -> None:
    """Create folders in place of the files that mark failed cells."""
    for run_dir in cells_of(path):
        (run_dir / "FAILED").mkdir(parents=True)


DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "truncated configs": (sweep_file("configs.json", b'{"a": '), ("plan",), "configs.json: damaged"),
    "configs as a list": (sweep_file("configs.json", b"[1]"), ("plan",), "configs.json: damaged"),
    "configs nested deeply": (sweep_file("configs.json", b"[" * 100_000), ("plan",), "configs.json: damaged"),
    "configs that are not text": (sweep_file("configs.json", b"\xff\xfe\x00"), ("run",), "configs.json: damaged"),
    "truncated jobs": (sweep_file("submitted.json", b"{"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "jobs as a list": (sweep_file("submitted.json", b"[1]"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "a truncated summary": (cell_files("summary.json", "{"), ("collect",), "summary.json: cannot be read"),
    "a summary as a list": (cell_files("summary.json", "[1]"), ("collect",), "summary.json: cannot be read"),
    "a summary nested deeply": (cell_files("summary.json", "[" * 100_000), ("collect",), "summary.json: cannot"),
    "a file in place of the directory of the sweep": (file_as_root, ("status",), "not a directory"),
    "a file in place of the directory of a cell": (
        files_as_cells,
        ("run", "--in_process", "--jobs", "1"),
        "File exists",
    ),
    "a folder in place of a marker of failure": (folder_as_marker, ("retry",), "FAILED: Is a directory"),
}


@pytest.mark.parametrize(("damage", "args", "message"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_directory_is_reported_in_one_line(
    damage: Callable[[Path], None], args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    damage(path)
    assert_refused(sweep(args[0], path, *args[1:]), str(root_of(path)), message)


def test_a_damaged_record_of_the_last_check_is_replaced(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    root_of(path).mkdir()
    sweep("plan", path).succeeded()
    (root_of(path) / "checked.txt").write_bytes(b"\xff\xfe\x00")
    sweep("plan", path).succeeded()
    assert (root_of(path) / "checked.txt").read_text().isalnum()


def test_different_numbers_of_threads_are_noted_in_status(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    cell_files("summary.json", '{"threads": 1}')(path)
    assert "note:" not in sweep("status", path).succeeded().out
    (cells_of(path)[0] / "summary.json").write_text('{"threads": 2, "val/acc1": 0.5}')
    assert "threads (1 for 3 cells, 2 for 1 cell)" in sweep("status", path).succeeded().out
    cells = json.loads(sweep("status", path, "--format", "json").succeeded().out)
    assert [cell["threads"] for cell in cells] == [2, 1, 1, 1]
    sweep("collect", path).succeeded()
    assert ",threads" in (root_of(path) / "results.csv").read_text().splitlines()[0]
