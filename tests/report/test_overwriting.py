"""The option `overwrite` of the commands that write a directory."""

from pathlib import Path

import pytest
from running import assert_refused, run

from sinkablate.run.directory import lock_directory, unlock_directory

OVERWRITTEN: dict[str, tuple[str, ...]] = {
    "diagnose": ("parts/notes.txt", "parts/mine.npz"),
    "report": ("figures/mine.pdf", "tables/notes.md"),
    "intervene": ("parts/mine.json", "figures/mine.png", "diagnosis/notes.txt"),
}


@pytest.mark.parametrize(
    "command", ["diagnose", *(pytest.param(name, marks=pytest.mark.heavy) for name in ("intervene", "report"))]
)
def test_overwrite_removes_only_what_the_command_wrote(command: str, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    commands: dict[str, list[str | Path]] = {
        "diagnose": ["diagnose", "--run", finished, "--limit", "2"],
        "report": ["report", finished, "--maps", "0"],
        "intervene": [
            "intervene",
            "--run",
            finished,
            "--limit",
            "2",
            "--heads",
            "1:0",
            "--edits",
            "zero_value",
            "--control_images",
            "2",
        ],
    }
    run(*commands[command], "--out", out).succeeded()
    for name in OVERWRITTEN[command]:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    run(*commands[command], "--out", out, "--overwrite").succeeded()
    assert [(out / name).read_text() for name in OVERWRITTEN[command]] == ["mine"] * len(OVERWRITTEN[command])


def test_a_second_report_into_the_same_directory_is_refused(finished: Path, tmp_path: Path) -> None:
    lock = lock_directory(tmp_path / "out", "out")
    try:
        outcome = run("report", finished, "--maps", "0", "--out", tmp_path / "out")
        assert_refused(outcome, "another process is writing to it")
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    finally:
        unlock_directory(lock)
