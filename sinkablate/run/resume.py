"""What a run starts from: a named checkpoint, the latest of its directory, other weights, or nothing."""

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
from sinkablate.run.cells import WHERE
from sinkablate.run.checkpoint_files import check_checkpoint, resumable
from sinkablate.run.directory import CONFIG, DONE, last_checkpoint, refuse_to_overwrite

AUTO = "auto"
"""Value of `ckpt_path`: the latest whole checkpoint of the run directory, if there is one."""


NOT_THE_RUN = (*WHERE, "on_checkpoint_failure")
"""Keys, and below groups of keys, in which a finished run may differ from what is asked for: its numbers stay."""
NOT_THE_RUN_GROUPS = ("wandb.", "checkpoint.", "trainer.enable_", "trainer.profiler", "trainer.plugins")


def starting_point(verb: str, run_dir: Path, config: Any, resolved: Callable[[], str]) -> str | None:
    """The checkpoint to load, as `ckpt_path` and the directory say; None for none.

    Args:
        verb: fit, validate, test or predict.
        run_dir: Directory of the run.
        config: All keys.
        resolved: Makes the text of the `config.yaml` that they would leave.

    Raises:
        UserError: There is no such checkpoint, or a `fit` would write over results.
        SystemExit: With 0, the run that is to go on has finished.
    """
    path = config.ckpt_path
    if path == AUTO and verb == "fit":
        return _latest(run_dir, resolved, overwrite=config.overwrite)
    if path == AUTO:
        path = None
    if verb == "fit":
        if path:
            check_checkpoint(Path(path), trains=True)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            refuse_to_overwrite(run_dir, resumes=bool(path), overwrite=config.overwrite)
        return path
    return _used(Path(path)) if path else _trained_weights(verb, run_dir, config)


def _latest(run_dir: Path, resolved: Callable[[], str], *, overwrite: bool) -> str | None:
    """What `fit --ckpt_path auto` goes on from; None to start afresh."""
    if (run_dir / DONE).exists() and not overwrite:
        _refuse_ignored(run_dir, resolved())
        _say(f"run_dir={run_dir} holds a finished run: nothing to do")
        raise SystemExit(0)
    found, faults = (None, []) if overwrite else resumable(run_dir)
    for fault in faults:
        _say(f"passed over: {fault.removeprefix('ckpt_path=')}")
    _say(f"going on from {found}" if found else f"nothing to go on from in {run_dir}: a fresh start")
    return str(found) if found else None


def _refuse_ignored(run_dir: Path, text: str) -> None:
    """See that a finished run is the one that is asked for.

    Raises:
        UserError: Names the first key that differs, and how to train what is asked for.
    """
    saved, asked = with_current_names(flat(mapping_of(run_dir / CONFIG))), flat(yaml.safe_load(text))
    for key, value in asked.items():
        if key in NOT_THE_RUN or key.startswith(NOT_THE_RUN_GROUPS) or saved.get(key, value) == value:
            continue
        longer = ""
        if key in ("trainer.max_epochs", "trainer.max_steps"):
            longer = (
                "; its learning-rate schedule has ended: --run_dir NEW --ckpt_path "
                f"{last_checkpoint(run_dir)} trains on as a new run"
            )
        raise UserError(
            f"{key}={value}: run_dir={run_dir} holds a finished run with {saved[key]}{longer}; choose "
            "another --run_dir, or start over with --overwrite true"
        )


def _say(line: str) -> None:
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(line, file=sys.stderr, flush=True)


def _trained_weights(verb: str, run_dir: Path, config: Any) -> str | None:
    """The run's last checkpoint, or None where the backbone brings weights of its own."""
    last = last_checkpoint(run_dir)
    found = last if last.exists() else resumable(run_dir)[0]  # some ways to copy a folder leave links out
    if found:
        return _used(found)
    backbone = config.model.get("backbone")
    if backbone and (backbone.pretrained or backbone.checkpoint):
        _say(f"weights: {backbone.checkpoint or f'pretrained {backbone.name}'}")
        return None
    raise UserError(f"{verb} needs weights: {last} does not exist; give --run DIR, --run_dir or --ckpt_path")


def _used(path: Path) -> str:
    """Say which weights a command reads."""
    _say(f"weights: {path} (step {check_checkpoint(path)['global_step']})")
    return str(path)
