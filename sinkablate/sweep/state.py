"""Read the state of a cell from its directory, and claim a cell for one process."""

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
"""Files in the directory of a cell in addition to those of `fit`; `fit` itself holds the last one."""


class State(StrEnum):
    """States of a cell, in the order in which they usually occur."""

    TODO = "todo"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FAILED = "failed"
    DONE = "done"


def state_of(run_dir: Path, *, claimed_here: bool = False) -> State:
    """Return the state of the cell in a directory, from its files and not from an exit code.

    A run that ended without a marker counts as preempted if it has a checkpoint to resume from.

    Args:
        run_dir: Directory of the cell.
        claimed_here: Whether the caller holds the claim, which then does not mean that the cell is running.
    """
    names = {entry.name for entry in os.scandir(run_dir)} if run_dir.is_dir() else set()
    if DONE in names:
        return State.DONE
    if not claimed_here and any(name in names and _held(run_dir / name) for name in (CLAIM, RUN_LOCK)):
        return State.RUNNING
    if FAILED in names:
        return State.FAILED
    if PREEMPTED in names or ("checkpoints" in names and any((run_dir / "checkpoints").glob("*.ckpt"))):
        return State.PREEMPTED
    return State.TODO


def states(cells: tuple[Cell, ...], root: Path) -> dict[str, State]:
    """Return the state of every cell, by its id."""
    return {cell.id: state_of(root / cell.id) for cell in cells}


def _held(path: Path) -> bool:
    """Return whether a process holds a lock file."""
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
    """Claim a cell; yields the file descriptor of the lock, or None if another process holds it.

    A child process that inherits the descriptor keeps the claim if its parent is killed, so no other process
    trains the same cell.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / CLAIM).open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
        else:
            yield file.fileno()


def last_line(run_dir: Path, log: str = LOG) -> str:
    """Return the last line of output of a cell; empty if there is none."""
    lines = _tail(run_dir / log)
    return lines[-1] if lines else ""


def failed_because(run_dir: Path) -> str:
    """Return why a cell failed, in one line."""
    try:
        return (run_dir / FAILED).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def mark_failed(run_dir: Path, how: str) -> None:
    """Record that a cell failed, with the exit code or signal and its last error line."""
    lines = _tail(run_dir / LOG)
    errors = [line for line in lines if line.startswith("error: ")] or lines[-1:]
    write_text(run_dir / FAILED, f"{how}: {errors[-1] if errors else 'no output'}\n")


def summary_of(run_dir: Path) -> dict[str, Any]:
    """Return the summary of a finished cell.

    Raises:
        UserError: The summary cannot be read.
    """
    path = run_dir / "summary.json"
    try:
        summary: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        summary = None
    if not isinstance(summary, dict):
        raise UserError(f"{path}: cannot be read; remove {run_dir} and run the cell again")
    return dict(summary)


def threads_of(states: Mapping[str, State], root: Path) -> dict[str, int]:
    """Return the number of CPU threads of each finished cell whose summary holds it, by the id of the cell."""
    counts = {}
    for key in (key for key, state in states.items() if state is State.DONE):
        with contextlib.suppress(UserError):
            threads = summary_of(root / key).get("threads")
            if isinstance(threads, int):
                counts[key] = threads
    return counts


def reset(run_dir: Path) -> None:
    """Clear the failure or divergence of a cell, so that it resumes from the last good checkpoint, if there is one."""
    (run_dir / FAILED).unlink(missing_ok=True)
    (run_dir / "checkpoints" / NONFINITE).unlink(missing_ok=True)
    if not (last := last_checkpoint(run_dir)).exists():
        last.unlink(missing_ok=True)  # a link to the removed checkpoint


def read_notes(path: Path, damaged: str) -> dict[str, str]:
    """Read a JSON object that a command of the sweep has written; empty if the file does not exist.

    Args:
        path: The file.
        damaged: End of the message if the file holds something else: what it is for and what to do.

    Raises:
        UserError: The file is damaged.
    """
    try:
        notes = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise UserError(f"{path}: damaged; {damaged}")
    return notes


def _tail(path: Path, size: int = 4096) -> list[str]:
    """Return the last lines of a file, without empty lines."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
