"""One directory per run: what is in it, when it may be written, and how it is closed.

config.yaml  metrics.csv  diagnostics/*.parquet  checkpoints/last.ckpt  summary.json  DONE | PREEMPTED
"""

import os
import shutil
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.files.writing import naming, replacing, write_json
from sinkablate.run.provenance import provenance
from sinkablate.run.reading_order import reading_order

DONE, PREEMPTED = "DONE", "PREEMPTED"
"""Markers: the run has finished; it was stopped and can go on."""
CONFIG, WANDB = "config.yaml", "wandb.json"
DIAGNOSIS, INTERVENTION = "diagnosis.json", "intervention.json"
OURS = (
    CONFIG,
    "metrics.csv",
    "diagnostics",
    "figures",
    "checkpoints",
    "summary.json",
    DONE,
    PREEMPTED,
    "wandb",
    WANDB,
    "validate.json",
    "test.json",
    "predictions.parquet",
)


_LONGEST = "diagnostics/blocks/step_00000000.parquet"
"""The longest name in a directory."""
LAST, FINAL, NONFINITE = "last.ckpt", "final.ckpt", "nonfinite.ckpt"
"""In the folder of checkpoints: a link to the latest; the final weights, where no other checkpoint holds them; weights
before the step whose loss became NaN or infinite."""


def holds_run(directory: Path) -> bool:
    """True of a directory in which a run was trained, beside whose `config.yaml` there is something of the run."""
    return any((directory / name).exists() for name in ("checkpoints", "metrics.csv", "summary.json", DONE, PREEMPTED))


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps its latest checkpoint."""
    return run_dir / "checkpoints" / LAST


def diverged(run_dir: Path) -> bool:
    """True of a run that was stopped because its loss became NaN or infinite."""
    return not (run_dir / DONE).exists() and (run_dir / "checkpoints" / NONFINITE).exists()


def refuse_to_overwrite(run_dir: Path, *, resumes: bool, overwrite: bool) -> None:
    """Stop a `fit` that would write over results, before anything is touched.

    Raises:
        UserError: The directory holds a finished run, or an unfinished one that is not being resumed.
    """
    if overwrite:
        return
    if (run_dir / DONE).exists():
        raise UserError(f"run_dir={run_dir} holds a finished run; choose another --run_dir or give --overwrite true")
    last = last_checkpoint(run_dir)
    if not resumes and (last.exists() or (run_dir / "metrics.csv").exists()):
        there = (
            ": resume it with --ckpt_path auto, or start over with --overwrite true"
            if last.exists()
            else " that stopped before its first checkpoint: start over with --overwrite true, or choose another "
            "--run_dir"
        )
        raise UserError(f"run_dir={run_dir} holds an unfinished run{there}")


def require_writable(run_dir: Path, key: str = "run_dir") -> None:
    """See that a directory, named by a key, can be written, or made, without writing anything.

    Raises:
        UserError: A file is in the way, or the directory belongs to somebody else.
    """
    try:
        os.lstat(run_dir / _LONGEST)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name or a path that is too long; a NUL in it
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{key}={_printable(run_dir)} cannot be written: {reason}") from None
    nearest = next(path for path in (run_dir, *run_dir.absolute().parents) if os.path.exists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{key}={run_dir} cannot be written: {nearest} is not a writable directory")


def _printable(path: Path) -> str:
    """A path as it can be shown in one line."""
    text = repr(str(path))[1:-1]
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def lock_directory(directory: Path, key: str) -> FileLock:
    """Lock a directory until this process ends or the lock is released.

    Raises:
        UserError: Another process is writing there, or the directory cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(timeout=0.5)  # `sweep status` holds it for an instant to see whether somebody else does
    except Timeout:
        raise UserError(f"{key}={directory} is being written by another process") from None
    except OSError as error:
        raise UserError(f"{key}={directory} cannot be written: {error.strerror}") from error
    return lock


def unlock_directory(lock: FileLock) -> None:
    """Give a directory back, and leave no trace."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def prepare(run_dir: Path, config: str, *, resumes: bool) -> None:
    """Make the directory and write `config.yaml`; a run that starts afresh clears what an earlier one left.

    Raises:
        UserError: The directory cannot be written.
    """
    try:
        for name in () if resumes else OURS:
            path = run_dir / name
            if path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        for partial in (run_dir / "checkpoints").glob(".*.partial"):  # of a process that was killed
            partial.unlink()
        (run_dir / "checkpoints" / NONFINITE).unlink(missing_ok=True)  # its step is trained again
        with replacing(run_dir / CONFIG) as partial:
            partial.write_text(f"{WRITTEN_BY}{__version__}\n{config}")
    except OSError as error:
        raise UserError(f"run_dir={run_dir} cannot be written: {error.strerror}") from error


WRITTEN_BY = "# written by sinkablate "
"""Beginning of the first line of `config.yaml`: a comment, so that any version reads the file."""


def version_note(path: Path) -> str:
    """Which version of sinkablate wrote a config file, for a message, if it was another one; else empty."""
    writer = writer_of(path)
    if writer in (None, __version__):
        return ""
    return f" (sinkablate {writer} wrote this file; this is {__version__})"


def writer_of(path: Path) -> str | None:
    """Return the version of sinkablate that wrote a config file with a run, None for a file of any other origin."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(100)
    except (OSError, ValueError):
        return None
    return line.removeprefix(WRITTEN_BY).strip() if line.startswith(WRITTEN_BY) else None


def close(run_dir: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` and then `DONE`: its existence is the proof that the run finished."""
    write_json(run_dir / "summary.json", reading_order(summary | provenance()), sort=False)
    with naming(run_dir / DONE):
        (run_dir / PREEMPTED).unlink(missing_ok=True)
        (run_dir / DONE).touch()
