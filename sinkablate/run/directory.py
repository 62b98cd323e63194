"""The directory of a run: its files, when they may be written, and how a run is finished.

config.yaml  metrics.csv  diagnostics/*.parquet  checkpoints/last.ckpt  summary.json  DONE | PREEMPTED
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.files.ownership import refuse_foreign
from sinkablate.files.writing import naming, remove, replacing, write_json
from sinkablate.run.provenance import provenance
from sinkablate.run.summary_order import sort_summary

DONE, PREEMPTED = "DONE", "PREEMPTED"
"""Markers: the run has finished; the run was stopped and can be resumed."""
CONFIG, WANDB = "config.yaml", "wandb.json"
DIAGNOSIS, INTERVENTION, EVALUATION = "diagnosis.json", "intervention.json", "evaluation.json"
RESULTS = {"validate": "validate.json", "test": "test.json", "predict": "predictions.parquet"}
"""The file that each command writes into the directory of a run."""
RUN_FILES = (
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
    *RESULTS.values(),
)
RUN_FOLDERS = {
    "diagnostics/blocks": ("step_*.parquet",),
    "diagnostics/norm_histograms": ("step_*.parquet",),
    "diagnostics": ("step_*.parquet",),
    "figures": ("heads_step_*.png",),
    "checkpoints": ("*.ckpt", ".*.partial"),
    "wandb": ("run-*", "offline-run-*", "latest-run", "debug*.log"),
}
"""What `fit` writes into each folder of a run. Every checkpoint belongs to the run, which may resume from it."""

_LONGEST_NAME = "diagnostics/norm_histograms/step_00000000.parquet"
"""The longest path in a run directory."""
LAST, FINAL, NONFINITE = "last.ckpt", "final.ckpt", "nonfinite.ckpt"
"""Files in the folder of checkpoints: a link to the latest; the final weights, if no other checkpoint contains them;
the weights before the step whose loss became NaN or infinite."""


def holds_run(directory: Path) -> bool:
    """Whether a run was trained in a directory: it contains more than a `config.yaml`."""
    return any((directory / name).exists() for name in ("checkpoints", "metrics.csv", "summary.json", DONE, PREEMPTED))


def last_checkpoint(run_dir: Path) -> Path:
    """Path of the latest checkpoint of a run."""
    return run_dir / "checkpoints" / LAST


def diverged(run_dir: Path) -> bool:
    """Whether a run was stopped because its loss became NaN or infinite."""
    return not (run_dir / DONE).exists() and (run_dir / "checkpoints" / NONFINITE).exists()


def refuse_foreign_files(run_dir: Path, names: Iterable[str] = RUN_FILES) -> None:
    """Refuse a directory that is not that of a run, but holds files that a command would replace or remove.

    Only `config.yaml` as `fit` writes it makes a directory a run's: other projects have a `config.yaml`, too.

    Args:
        run_dir: The directory.
        names: Files and folders that the command writes or removes.

    Raises:
        UserError: One of them exists and was not written by a run.
    """
    if writer_of(run_dir / CONFIG) is None:
        refuse_foreign(run_dir, names, key="run_dir", what=f"a run ({CONFIG} as fit writes it)")


def refuse_to_overwrite(run_dir: Path, *, resumes: bool, overwrite: bool) -> None:
    """Refuse a `fit` that would overwrite results, before anything is changed.

    Raises:
        UserError: The directory contains a finished run, an unfinished one that is not being resumed, or files that no
            run wrote.
    """
    refuse_foreign_files(run_dir)
    if overwrite:
        return
    if (run_dir / DONE).exists():
        raise UserError(
            f"run_dir={run_dir}: contains a finished run; choose another --run_dir, or start over with --overwrite true"
        )
    last = last_checkpoint(run_dir)
    if not resumes and (last.exists() or (run_dir / "metrics.csv").exists()):
        remedy = (
            "; resume it with --ckpt_path auto, or start over with --overwrite true"
            if last.exists()
            else " that stopped before its first checkpoint; start over with --overwrite true, or choose another "
            "--run_dir"
        )
        raise UserError(f"run_dir={run_dir}: contains an unfinished run{remedy}")


def require_writable(run_dir: Path, key: str = "run_dir") -> None:
    """Check that a directory can be written or created, without writing anything.

    Args:
        run_dir: The directory.
        key: The configuration key of the directory, for messages.

    Raises:
        UserError: A file is in the way, the path is invalid, or permissions are missing.
    """
    try:
        os.lstat(run_dir / _LONGEST_NAME)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name or path that is too long, or contains NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(
            f"{key}={_printable(run_dir)}: cannot be written ({reason}); choose another directory"
        ) from None
    nearest = next(path for path in (run_dir, *run_dir.absolute().parents) if os.path.exists(path))
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{key}={run_dir}: cannot be written, because {nearest} is not a writable directory")


def _printable(path: Path) -> str:
    """A path in a form that can be printed on one line."""
    text = repr(str(path))[1:-1]
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def lock_directory(directory: Path, key: str) -> FileLock:
    """Lock a directory until this process ends or the lock is released.

    Raises:
        UserError: Another process is writing to the directory, or it cannot be created.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / ".lock")
        lock.acquire(timeout=0.5)  # `sweep status` takes the lock for an instant to check whether it is free
    except Timeout:
        raise UserError(f"{key}={directory}: another process is writing to it") from None
    except OSError as error:
        raise UserError(f"{key}={directory}: cannot be written ({error.strerror})") from error
    return lock


def unlock_directory(lock: FileLock) -> None:
    """Release the lock of a directory and remove its file."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def prepare_directory(run_dir: Path, config: str, *, resumes: bool) -> None:
    """Create the directory of a run and write `config.yaml`.

    Args:
        run_dir: The directory.
        config: Content of `config.yaml`.
        resumes: Whether the run is resumed; otherwise the files of an earlier run are removed.

    Raises:
        UserError: The directory cannot be written, or contains files that no run wrote.
    """
    refuse_foreign_files(run_dir)
    try:
        if not resumes:
            _remove_run(run_dir)
        (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
        for partial in (run_dir / "checkpoints").glob(".*.partial"):  # left by a process that was killed
            partial.unlink()
        (run_dir / "checkpoints" / NONFINITE).unlink(missing_ok=True)  # its step is repeated
        with replacing(run_dir / CONFIG) as partial:
            partial.write_text(f"{WRITTEN_BY}{__version__}\n{config}", encoding="utf-8")
    except OSError as error:
        raise UserError(f"run_dir={run_dir}: cannot be written ({error.strerror})") from error


def _remove_run(run_dir: Path) -> None:
    """Remove what an earlier run wrote, but not its `config.yaml`, which shows that the directory belongs to a run."""
    for folder, patterns in RUN_FOLDERS.items():
        for pattern in patterns:
            for path in (run_dir / folder).glob(pattern):
                remove(path)
        with suppress(OSError):  # the folder does not exist, or contains files that no run wrote
            (run_dir / folder).rmdir()
    for name in RUN_FILES:
        if name not in (CONFIG, *RUN_FOLDERS):
            remove(run_dir / name)


WRITTEN_BY = "# written by sinkablate "
"""Start of the first line of `config.yaml`, a comment, so that every version can read the file."""


def version_note(path: Path) -> str:
    """A note for messages if another version of sinkablate wrote a config file; otherwise empty."""
    writer = writer_of(path)
    if writer in (None, __version__):
        return ""
    return f" (the file was written by sinkablate {writer}; this is {__version__})"


def writer_of(path: Path) -> str | None:
    """Return the version of sinkablate that wrote a config file with a run; None for any other file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(100)
    except (OSError, ValueError):
        return None
    return line.removeprefix(WRITTEN_BY).strip() if line.startswith(WRITTEN_BY) else None


def finish_run(run_dir: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` and then `DONE`, whose existence means that the run has finished."""
    write_json(run_dir / "summary.json", sort_summary(summary | provenance()), sort=False)
    with naming(run_dir / DONE):
        (run_dir / PREEMPTED).unlink(missing_ok=True)
        (run_dir / DONE).touch()
