"""The checkpoints of a run on disk: which of them is whole, which is furthest, and whether the last one is final."""

import pickle
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.run.directory import LAST, NONFINITE, last_checkpoint


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
        raise UserError(
            f"run_dir={run_dir}: the final weights, of step {step}, could not be written and {kept}; "
            "make room and go on with --ckpt_path auto"
        )


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
        raise UserError(
            f"ckpt_path={path}: holds the weights alone (checkpoint.save_weights_only), which a training "
            "cannot go on from"
        )
    return content
