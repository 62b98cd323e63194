"""The position of a run in its data, and whether the position in a checkpoint means the same with these settings."""

from collections.abc import Mapping
from typing import Any, cast

import lightning as L
from lightning.pytorch.loops.progress import _ProcessedTracker

from sinkablate.errors import UserError


def training_position(trainer: L.Trainer | None) -> tuple[int, int]:
    """Return (epoch, batch) of the next training batch: the start of the next epoch if one has just ended.

    The position is read from the trainer and never stored a second time. Lightning increments `current_epoch` between
    the last batch and the epoch-end hooks, and a checkpoint may be written before or after; `ready` counts the same
    number of epochs in both cases.
    """
    if trainer is None:
        return 0, 0
    fit = trainer.fit_loop
    progress = fit.epoch_loop.batch_progress
    batches = cast(_ProcessedTracker, progress.current)
    if batches.processed == 0:
        return trainer.current_epoch, 0
    if progress.is_last_batch and batches.processed == batches.ready:
        return fit.epoch_progress.current.ready, 0
    return fit.epoch_progress.current.ready - 1, batches.processed


def require_same_order(current: Mapping[str, Any], saved: Mapping[str, Any], train: str) -> None:
    """Check that the settings which determine the order of samples are those of a checkpoint.

    An indexed reader may change its number of processes and workers: the global batches stay the same.

    Args:
        current: State of the data module now, see `ImageData.state_dict`.
        saved: The state in the checkpoint.
        train: Location of the training set, for messages.

    Raises:
        UserError: The batch size, the number of readers of a stream, or the names of the classes differ from those in
            the checkpoint.
    """
    classes, saved_classes = current.get("classes"), saved.get("classes")
    if classes and saved_classes and classes != saved_classes:
        differing = sorted(set(classes) ^ set(saved_classes))[:3]
        raise UserError(
            f"data.source.train={train}: its class folders differ from those of the checkpoint "
            f"({', '.join(differing)}), so labels would be shifted; use the folders that the run was trained on"
        )
    indexed = current["data.source.reader"] == "indexed" == saved["data.source.reader"]
    for key, value in current.items():
        if key == "classes" or (key == "readers" and indexed) or saved[key] == value:
            continue
        hint = " (processes times data.num_workers)" if key == "readers" else ""
        raise UserError(
            f"{key}={value} differs from the checkpoint's {saved[key]}{hint}: the rest of its epoch cannot be "
            "reconstructed; use the value of the checkpoint"
        )
