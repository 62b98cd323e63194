"""What a run starts from: a named checkpoint, the latest of its directory, other weights, or nothing."""

import sys
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only

from sinkablate.errors import UserError
from sinkablate.run_directory import DONE, check_checkpoint, last_checkpoint, refuse_to_overwrite, resumable

AUTO = "auto"
"""Value of `ckpt_path`: the latest whole checkpoint of the run directory, if there is one."""


def starting_point(verb: str, run_dir: Path, config: Any) -> str | None:
    """The checkpoint to load, as `ckpt_path` and the directory say; None for none.

    Args:
        verb: fit, validate, test or predict.
        run_dir: Directory of the run.
        config: All keys.

    Raises:
        UserError: There is no such checkpoint, or a `fit` would write over results.
        SystemExit: With 0, the run that is to go on has finished.
    """
    path = config.ckpt_path
    if path == AUTO and verb == "fit":
        return _latest(run_dir, overwrite=config.overwrite)
    if path == AUTO:
        path = None
    if verb == "fit":
        if path:
            check_checkpoint(Path(path), trains=True)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            refuse_to_overwrite(run_dir, resumes=bool(path), overwrite=config.overwrite)
        return path
    return _used(Path(path)) if path else _trained_weights(verb, run_dir, config)


def _latest(run_dir: Path, *, overwrite: bool) -> str | None:
    """What `fit --ckpt_path auto` goes on from; None to start afresh."""
    if (run_dir / DONE).exists() and not overwrite:
        _say(f"run_dir={run_dir} holds a finished run: nothing to do")
        raise SystemExit(0)
    found, faults = (None, []) if overwrite else resumable(run_dir)
    for fault in faults:
        _say(f"passed over: {fault.removeprefix('ckpt_path=')}")
    _say(f"going on from {found}" if found else f"nothing to go on from in {run_dir}: a fresh start")
    return str(found) if found else None


def _say(line: str) -> None:
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(line, file=sys.stderr, flush=True)


def _trained_weights(verb: str, run_dir: Path, config: Any) -> str | None:
    """The run's last checkpoint, or None where the backbone brings weights of its own."""
    last = last_checkpoint(run_dir)
    if last.exists():
        return _used(last)
    backbone = config.model.get("backbone")
    if backbone and (backbone.pretrained or backbone.checkpoint):
        _say(f"weights: {backbone.checkpoint or f'pretrained {backbone.name}'}")
        return None
    raise UserError(f"{verb} needs weights: {last} does not exist; give --run DIR, --run_dir or --ckpt_path")


def _used(path: Path) -> str:
    """Say which weights a command reads."""
    _say(f"weights: {path} (step {check_checkpoint(path)['global_step']})")
    return str(path)
