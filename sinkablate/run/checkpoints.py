"""Finds and checks the checkpoints of a run: which are intact, which is furthest, and whether the last one is final."""

import pickle
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.run.directory import LAST, NONFINITE, last_checkpoint


def furthest_checkpoint(run_dir: Path) -> tuple[Path | None, list[str]]:
    """Find the intact checkpoint of a run that is furthest in training.

    The position stored in a checkpoint decides, because copying or a wrong clock changes file times. The checkpoint
    written when the loss became NaN or infinite is left out, because it was written in the middle of a step.

    Returns:
        Path of the checkpoint, None if there is none, and one line for each file that was ignored.
    """
    faults: list[str] = []
    candidates: list[tuple[tuple[int, ...], bool, Path]] = []
    for path in sorted((run_dir / "checkpoints").glob("*.ckpt")):
        if path.is_symlink() or path.name == NONFINITE:
            continue
        try:
            content = check_checkpoint(path, training=True)
        except UserError as error:
            faults.append(str(error))
        else:
            candidates.append((_position(content), path.name != LAST, path))
    return (max(candidates)[-1] if candidates else None), faults


def _position(checkpoint: dict[str, Any]) -> tuple[int, ...]:
    """Progress of a run: its step and, for checkpoints of the same step, which epochs had started and ended."""
    epoch = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current", {})
    return (checkpoint["global_step"], *(epoch.get(name, 0) for name in ("completed", "processed", "started", "ready")))


def saved_step(path: Path) -> int | None:
    """Number of optimizer steps of a checkpoint; None if it does not exist or is damaged."""
    try:
        return int(check_checkpoint(path)["global_step"])
    except UserError:
        return None


def require_final_weights(run_dir: Path, step: int) -> None:
    """Check that `last.ckpt` contains the weights of the last step, without which a run has not finished.

    Raises:
        UserError: The weights could not be written.
    """
    latest = saved_step(last_checkpoint(run_dir))
    if latest != step:
        state = "there is no checkpoint" if latest is None else f"the latest checkpoint is from step {latest}"
        raise UserError(
            f"run_dir={run_dir}: the final weights, from step {step}, could not be written, and {state}; "
            "free some disk space and resume with --ckpt_path auto"
        )


def check_checkpoint(path: Path, *, training: bool = False) -> dict[str, Any]:
    """Return the content of an intact checkpoint of a run; tensors are memory-mapped, not read.

    Args:
        path: The file.
        training: Whether training is to resume from it.

    Raises:
        UserError: The file is missing, truncated or not a checkpoint of a run, or training cannot resume from it.
    """
    import torch  # takes seconds, and is only needed for a checkpoint

    if not path.is_file():
        raise UserError(f"ckpt_path={path}: no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        raise UserError(f"ckpt_path={path}: truncated, or not a checkpoint") from None
    if not isinstance(content, dict) or not {"state_dict", "hyper_parameters", "global_step"} <= content.keys():
        raise UserError(
            f"ckpt_path={path}: not a checkpoint of a run; to load weights only, use model.backbone.checkpoint"
        )
    if training and "optimizer_states" not in content:
        raise UserError(
            f"ckpt_path={path}: contains only weights (checkpoint.save_weights_only), so training cannot resume from "
            "it; load them with model.backbone.checkpoint"
        )
    return content
