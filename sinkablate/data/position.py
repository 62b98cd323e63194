"""Where a training stands, for the loaders: asked of the trainer, never kept beside it."""

from typing import cast

import lightning as L
from lightning.pytorch.loops.progress import _ProcessedTracker


def training_position(trainer: L.Trainer | None) -> tuple[int, int]:
    """(epoch, batch) of the next training batch, the start of the next epoch where one has just ended.

    Lightning raises `current_epoch` between the last batch and the epoch-end hooks, and a checkpoint may be
    written on either side; `ready` counts epochs alike on both.
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
