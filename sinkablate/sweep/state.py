"""What the directory of a cell says of it, and how one process claims it."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.files.writing import write_text
from sinkablate.run.cells import Cell
from sinkablate.run.directory import DONE, NONFINITE, PREEMPTED, last_checkpoint

CLAIM, FAILED, LOG, RUN_LOCK = ".claim", "FAILED", "log.txt", ".lock"
"""Beside the files of `fit` in the directory of a cell; the last is the one that `fit` itself holds."""


class State(StrEnum):
    """States of a cell, in the order of its life."""

    TODO = "todo"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FAILED = "failed"
    DONE = "done"


def state_of(run_dir: Path, *, ours: bool = False) -> State:
    """State of the cell in a directory, from what is there; never from an exit code.

    A run that broke off without a word counts as preempted when it has a checkpoint to go on from.

    Args:
        run_dir: Directory of the cell.
        ours: The caller holds the claim: it does not count as running.
    """
    names = {entry.name for entry in os.scandir(run_dir)} if run_dir.is_dir() else set()
    if DONE in names:
        return State.DONE
    if not ours and any(name in names and _held(run_dir / name) for name in (CLAIM, RUN_LOCK)):
        return State.RUNNING
    if FAILED in names:
        return State.FAILED
    if PREEMPTED in names or ("checkpoints" in names and any((run_dir / "checkpoints").glob("*.ckpt"))):
        return State.PREEMPTED
    return State.TODO


def states(cells: tuple[Cell, ...], root: Path) -> dict[str, State]:
    """State of every cell, by id."""
    return {cell.id: state_of(root / cell.id) for cell in cells}


def _held(path: Path) -> bool:
    """True while a process holds a lock file."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def claimed(run_dir: Path) -> Iterator[int | None]:
    """Make a cell ours; yields the lock's file descriptor, or None where another process has it.

    A child that inherits the descriptor keeps the claim when its parent is killed: nobody trains the cell beside it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / CLAIM).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield file.fileno()


def last_line(run_dir: Path) -> str:
    """The last line that a cell wrote; empty if there is none."""
    lines = _tail(run_dir / LOG)
    return lines[-1] if lines else ""


def failed_because(run_dir: Path) -> str:
    """Why a cell failed, in one line."""
    try:
        return (run_dir / FAILED).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def mark_failed(run_dir: Path, how: str) -> None:
    """Write down that a cell failed: how, and its last error line."""
    lines = _tail(run_dir / LOG)
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    write_text(run_dir / FAILED, f"{how}: {errors[-1] if errors else 'it said nothing'}\n")


def summary_of(run_dir: Path) -> dict[str, Any]:
    """What a finished cell says of itself.

    Raises:
        UserError: It cannot be read.
    """
    path = run_dir / "summary.json"
    try:
        summary: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: cannot be read; run the cell again after removing {run_dir}")
    return dict(summary)


def threads_of(states: Mapping[str, State], root: Path) -> dict[str, int]:
    """The number of CPU threads that each finished cell was trained with, by its id, where its summary says so."""
    found = {}
    for key in (key for key, state in states.items() if state is State.DONE):
        with contextlib.suppress(UserError):
            threads = summary_of(root / key).get("threads")
            if isinstance(threads, int):
                found[key] = threads
    return found


def reset(run_dir: Path) -> None:
    """Forget that a cell failed, or diverged: it goes on from the checkpoint before, if there is one."""
    (run_dir / FAILED).unlink(missing_ok=True)
    (run_dir / "checkpoints" / NONFINITE).unlink(missing_ok=True)
    if not (last := last_checkpoint(run_dir)).exists():
        last.unlink(missing_ok=True)  # it led to that one


def read_notes(path: Path, damaged: str) -> dict[str, str]:
    """What the commands of a sweep wrote down in a JSON file; nothing where there is none.

    Args:
        path: The file.
        damaged: What to say, and what to do, when it holds something else.

    Raises:
        UserError: It is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{path}: damaged: {damaged}")
    return found


def _tail(path: Path, size: int = 4096) -> list[str]:
    """The last lines of a file, without empty ones."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
