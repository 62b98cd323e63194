"""The directory of a sweep: damaged files in it are named, and differences between its cells are noted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from running import ROOT
from sweeping import content, opened, root_of, sweep, written

from sinkablate.sweep.state import DONE


def cells_of(path: Path) -> list[Path]:
    return [root_of(path) / cell.id for cell in opened(path).cells]


def beside(name: str, said: bytes) -> Callable[[Path], None]:
    """A file in the directory of the sweep."""

    def make(path: Path) -> None:
        root_of(path).mkdir()
        (root_of(path) / name).write_bytes(said)

    return make


def in_each_cell(name: str, said: str) -> Callable[[Path], None]:
    """A file in the directory of every cell."""

    def make(path: Path) -> None:
        for run_dir in cells_of(path):
            run_dir.mkdir(parents=True)
            (run_dir / DONE).touch()
            (run_dir / name).write_text(said)

    return make


def file_as_root(path: Path) -> None:
    root_of(path).touch()


def files_as_cells(path: Path) -> None:
    root_of(path).mkdir()
    for run_dir in cells_of(path):
        run_dir.touch()


def folder_as_mark(path: Path) -> None:
    for run_dir in cells_of(path):
        (run_dir / "FAILED").mkdir(parents=True)


DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "configs cut off": (beside("configs.json", b'{"a": '), ("plan",), "configs.json: damaged"),
    "configs as a list": (beside("configs.json", b"[1]"), ("plan",), "configs.json: damaged"),
    "configs nested deeply": (beside("configs.json", b"[" * 100_000), ("plan",), "configs.json: damaged"),
    "configs that are not text": (beside("configs.json", b"\xff\xfe\x00"), ("run",), "configs.json: damaged"),
    "jobs cut off": (beside("submitted.json", b"{"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "jobs as a list": (beside("submitted.json", b"[1]"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "a summary cut off": (in_each_cell("summary.json", "{"), ("collect",), "summary.json: cannot be read"),
    "a summary as a list": (in_each_cell("summary.json", "[1]"), ("collect",), "summary.json: cannot be read"),
    "a summary nested deeply": (in_each_cell("summary.json", "[" * 100_000), ("collect",), "summary.json: cannot"),
    "a file as directory of the sweep": (file_as_root, ("status",), "not a directory"),
    "a file where a cell is to be trained": (files_as_cells, ("run", "--in_process", "--jobs", "1"), "File exists"),
    "a folder in place of a mark": (folder_as_mark, ("retry",), "FAILED: Is a directory"),
}


@pytest.mark.parametrize(("make", "args", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_directory_is_one_line(
    make: Callable[[Path], None], args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    make(path)
    outcome = sweep(args[0], path, *args[1:])
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert str(root_of(path)) in line
    assert said in line


def test_a_damaged_note_of_the_last_check_is_written_anew(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    root_of(path).mkdir()
    sweep("plan", path).succeeded()
    (root_of(path) / "checked.txt").write_bytes(b"\xff\xfe\x00")
    sweep("plan", path).succeeded()
    assert (root_of(path) / "checked.txt").read_text().isalnum()


def test_cells_that_differ_in_their_threads_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    in_each_cell("summary.json", '{"threads": 1}')(path)
    assert "note:" not in sweep("status", path).succeeded().out
    (cells_of(path)[0] / "summary.json").write_text('{"threads": 2, "val/acc1": 0.5}')
    assert "threads (3 with 1, 1 with 2)" in sweep("status", path).succeeded().out
    shown = json.loads(sweep("status", path, "--format", "json").succeeded().out)
    assert [cell["threads"] for cell in shown] == [2, 1, 1, 1]
    sweep("collect", path).succeeded()
    assert ",threads" in (root_of(path) / "results.csv").read_text().splitlines()[0]
