"""One directory per run: what is in it, when it may be written, and how it is closed.

    config.yaml  metrics.csv  diagnostics/*.parquet  checkpoints/last.ckpt  summary.json  DONE | PREEMPTED
"""

import json
import math
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.reading_order import reading_order

DONE, PREEMPTED = "DONE", "PREEMPTED"
"""Markers: the run has finished; it was stopped and can go on."""
CONFIG, WANDB = "config.yaml", "wandb.json"
OURS = (CONFIG, "metrics.csv", "diagnostics", "figures", "checkpoints", "summary.json", DONE, PREEMPTED, "wandb", WANDB,
        "validate.json", "test.json", "predictions.parquet")
PACKAGES = ("torch", "torchvision", "lightning", "timm", "torchmetrics", "wandb", "webdataset", "numpy")


_LONGEST = "diagnostics/blocks/step_00000000.parquet"
"""The longest name in a directory."""
LAST, FINAL, NONFINITE = "last.ckpt", "final.ckpt", "nonfinite.ckpt"
"""In the folder of checkpoints: a link to the latest; the final weights, where no other checkpoint holds them; weights
before the step whose loss was no number any more."""


def holds_run(directory: Path) -> bool:
    """True of a directory in which a run was trained, beside whose `config.yaml` there is something of the run."""
    return any((directory / name).exists() for name in ("checkpoints", "metrics.csv", "summary.json", DONE, PREEMPTED))


def last_checkpoint(run_dir: Path) -> Path:
    """Where a run keeps its latest checkpoint."""
    return run_dir / "checkpoints" / LAST


def diverged(run_dir: Path) -> bool:
    """True of a run that was stopped because its loss was no number any more."""
    return not (run_dir / DONE).exists() and (run_dir / "checkpoints" / NONFINITE).exists()


def resumable(run_dir: Path) -> tuple[Path | None, list[str]]:
    """The whole checkpoint of a run that is furthest in its training, and a line for each file that was passed over.

    What a checkpoint says of itself decides, because a copy or a wrong clock changes the times of files. The one of a
    loss that was not a number is left out: it was written in the middle of a step.
    """
    faults: list[str] = []
    found: list[tuple[tuple[int, ...], bool, Path]] = []
    for path in sorted((run_dir / "checkpoints").glob("*.ckpt")):
        if path.is_symlink() or path.name == NONFINITE:
            continue
        try:
            content = check_checkpoint(path, trains=True)
        except UserError as error:
            faults.append(str(error))
        else:
            found.append((_position(content), path.name != LAST, path))
    return (max(found)[-1] if found else None), faults


def _position(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    """How far a training had come: its step and, where two checkpoints share it, which epoch had begun and ended."""
    epoch = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    return (checkpoint["global_step"], *(epoch.get(name, 0) for name in ("completed", "processed", "started", "ready")))


def saved_step(path: Path) -> int | None:
    """Optimizer steps behind a checkpoint; None if there is no whole one."""
    try:
        return int(check_checkpoint(path)["global_step"])
    except UserError:
        return None


def require_final_weights(run_dir: Path, step: int) -> None:
    """See that `last.ckpt` holds the weights of the last step, without which a run is not done.

    Raises:
        UserError: They could not be written.
    """
    found = saved_step(last_checkpoint(run_dir))
    if found != step:
        kept = "there is no checkpoint" if found is None else f"the latest checkpoint is of step {found}"
        raise UserError(f"run_dir={run_dir}: the final weights, of step {step}, could not be written and {kept}; "
                        "make room and go on with --ckpt_path auto")


def check_checkpoint(path: Path, *, trains: bool = False) -> dict[str, Any]:
    """The content of a whole checkpoint of a run; tensors are mapped, not read.

    Args:
        path: The file.
        trains: A training is to go on from it.

    Raises:
        UserError: It is missing, truncated, or something else, or holds too little to go on from.
    """
    import torch  # which takes seconds, and only a checkpoint needs

    if not path.is_file():
        raise UserError(f"ckpt_path={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        raise UserError(f"ckpt_path={path}: truncated, or not a checkpoint") from None
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters", "global_step"} <= content.keys():
        raise UserError(f"ckpt_path={path}: not a checkpoint of a run (weights alone go to model.backbone.checkpoint)")
    if trains and "optimizer_states" not in content:
        raise UserError(f"ckpt_path={path}: holds the weights alone (checkpoint.save_weights_only), which a training "
                        "cannot go on from")
    return content


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
        there = (": resume it with --ckpt_path auto, or start over with --overwrite true" if last.exists() else
                 " that stopped before its first checkpoint: start over with --overwrite true, or choose another "
                 "--run_dir")
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
        raise UserError(f"{key}={run_dir} cannot be written: {nearest} is no directory that can be written")


def _printable(path: Path) -> str:
    """A path as it can be shown in one line."""
    text = repr(str(path))[1:-1]
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def hold(directory: Path, key: str) -> FileLock:
    """Make a directory ours until this process ends or the lock is released.

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


def release(lock: FileLock) -> None:
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
        (run_dir / CONFIG).write_text(f"{_WRITTEN_BY}{__version__}\n{config}")
    except OSError as error:
        raise UserError(f"run_dir={run_dir} cannot be written: {error.strerror}") from error


_WRITTEN_BY = "# written by sinkablate "
"""Beginning of the first line of `config.yaml`: a comment, so that any version reads the file."""


def version_note(path: Path) -> str:
    """Which version of sinkablate wrote a config file, for a message, if it was another one; else empty."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            line = file.readline(100)
    except (OSError, ValueError):
        return ""
    writer = line.removeprefix(_WRITTEN_BY).strip()
    if not line.startswith(_WRITTEN_BY) or writer == __version__:
        return ""
    return f" (sinkablate {writer} wrote this file; this is {__version__})"


def provenance() -> dict[str, Any]:
    """Versions of what computed the numbers, and the git revision of the code where it is a checkout."""
    versions = {"sinkablate": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "git_revision": _git_revision()}


def _git_revision() -> str | None:
    """Commit of this source tree, `-dirty` when files differ from it; None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def write_json(path: Path, content: dict[str, Any], *, sort: bool = True) -> None:
    """Write a JSON file whole or not at all; what is not finite becomes null."""
    text = json.dumps(_finite(content), indent=2, sort_keys=sort, allow_nan=False) + "\n"
    write_whole(path, lambda partial: partial.write_text(text))


def write_whole(path: Path, write: Callable[[Path], Any], hint: str = "") -> None:
    """Write a file under a temporary name, then rename it: it is there whole or not at all.

    Args:
        path: The file; a link in its place is replaced, and what it points to is left alone.
        write: Writes to the path that it is given.
        hint: Ends the message.

    Raises:
        UserError: It cannot be written, as on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    with naming(path, hint):
        try:
            partial.unlink(missing_ok=True)  # a link that somebody else left there would be written through
            write(partial)
            os.replace(partial, path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise


@contextmanager
def naming(path: Path, hint: str = "") -> Iterator[None]:
    """Turn an error of the operating system into one line that names a file: its own often does not.

    Args:
        path: What the block writes.
        hint: Ends the message.

    Raises:
        UserError: It cannot be written, as on a full disk.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}{hint}") from None


def remove_files(folder: Path, pattern: str) -> None:
    """Remove the files that a command wrote into a folder, by a pattern of their names, and the folder if it is empty.

    What somebody else put there stays.
    """
    for path in folder.glob(pattern):
        if path.is_file() or path.is_symlink():
            path.unlink()
    with suppress(OSError):
        folder.rmdir()


def _finite(tree: Any) -> Any:
    """The same with null for every number that JSON does not know."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def close(run_dir: Path, summary: dict[str, Any]) -> None:
    """Write `summary.json` and then `DONE`: its existence is the proof that the run finished."""
    write_json(run_dir / "summary.json", reading_order(summary | provenance()), sort=False)
    with naming(run_dir / DONE):
        (run_dir / PREEMPTED).unlink(missing_ok=True)
        (run_dir / DONE).touch()
