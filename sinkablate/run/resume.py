"""What a command starts from: a named checkpoint, the latest one of the run directory, other weights, or nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only

from sinkablate.config import flat
from sinkablate.config.renames import with_current_names
from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import mapping_of
from sinkablate.run.cells import PLACEMENT_KEYS
from sinkablate.run.checkpoints import check_checkpoint, furthest_checkpoint
from sinkablate.run.directory import CONFIG, DONE, last_checkpoint, refuse_foreign_files, refuse_to_overwrite

AUTO = "auto"
"""Value of `ckpt_path` for the furthest intact checkpoint of the run directory, if there is one."""

MAY_DIFFER = (*PLACEMENT_KEYS, "on_checkpoint_failure")
"""Keys, and prefixes of keys, in which a finished run may differ from the requested one, as they change no result."""
MAY_DIFFER_PREFIXES = ("wandb.", "checkpoint.", "trainer.enable_", "trainer.profiler", "trainer.plugins")


def checkpoint_to_load(command: str, run_dir: Path, config: Any, resolved: Callable[[], str]) -> str | None:
    """Return the checkpoint to load according to `ckpt_path` and the run directory; None to start from scratch.

    Args:
        command: fit, validate, test or predict.
        run_dir: Directory of the run.
        config: All keys.
        resolved: Returns the `config.yaml` that these keys would produce.

    Raises:
        UserError: The checkpoint does not exist, or a `fit` would overwrite results.
        SystemExit: The run to be resumed has finished already (exit code 0).
    """
    path = config.ckpt_path
    if path == AUTO and command == "fit":
        return _latest(run_dir, resolved, overwrite=config.overwrite)
    if path == AUTO:
        path = None
    if command == "fit":
        if path:
            check_checkpoint(Path(path), training=True)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            refuse_to_overwrite(run_dir, resumes=bool(path), overwrite=config.overwrite)
        return path
    return _announce_weights(Path(path)) if path else _trained_weights(command, run_dir, config)


def _latest(run_dir: Path, resolved: Callable[[], str], *, overwrite: bool) -> str | None:
    """The checkpoint from which `fit --ckpt_path auto` resumes; None to start from scratch."""
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        refuse_foreign_files(run_dir)
    if (run_dir / DONE).exists() and not overwrite:
        _require_same_run(run_dir, resolved())
        _print(f"run_dir={run_dir}: contains the finished run; nothing to do")
        raise SystemExit(0)
    checkpoint, faults = (None, []) if overwrite else furthest_checkpoint(run_dir)
    for fault in faults:
        _print(f"checkpoint ignored: {fault.removeprefix('ckpt_path=')}")
    _print(f"resuming from {checkpoint}" if checkpoint else f"no checkpoint in {run_dir}: starting from scratch")
    return str(checkpoint) if checkpoint else None


def _require_same_run(run_dir: Path, text: str) -> None:
    """Check that a finished run is the one that is requested.

    Raises:
        UserError: A key differs; the message says how to train the requested run.
    """
    saved, requested = with_current_names(flat(mapping_of(run_dir / CONFIG))), flat(yaml.safe_load(text))
    for key, value in requested.items():
        if key in MAY_DIFFER or key.startswith(MAY_DIFFER_PREFIXES) or saved.get(key, value) == value:
            continue
        train_longer = ""
        if key in ("trainer.max_epochs", "trainer.max_steps"):
            train_longer = (
                ", whose learning-rate schedule has ended; to train longer in a new run, give --run_dir NEW "
                f"--ckpt_path {last_checkpoint(run_dir)}"
            )
        raise UserError(
            f"{key}={value}: run_dir={run_dir} contains a finished run with {saved[key]}{train_longer}; choose "
            "another --run_dir, or start over with --overwrite true"
        )


def _print(line: str) -> None:
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(line, file=sys.stderr, flush=True)


def _trained_weights(command: str, run_dir: Path, config: Any) -> str | None:
    """The last checkpoint of the run, or None if the backbone has its own pretrained weights."""
    last = last_checkpoint(run_dir)
    checkpoint = last if last.exists() else furthest_checkpoint(run_dir)[0]  # a copy of a folder may lack its links
    if checkpoint:
        return _announce_weights(checkpoint)
    backbone = config.model.get("backbone")
    if backbone and (backbone.pretrained or backbone.checkpoint):
        _print(f"weights: {backbone.checkpoint or f'pretrained {backbone.name}'}")
        return None
    raise UserError(f"{command} needs weights: {last} does not exist; give --run DIR, --run_dir or --ckpt_path")


def _announce_weights(path: Path) -> str:
    """Print which weights a command loads."""
    _print(f"weights: {path} (step {check_checkpoint(path)['global_step']})")
    return str(path)
