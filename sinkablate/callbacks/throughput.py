"""Measure how fast training runs."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from sinkablate.loggers.wandb import wandb_loggers


class Throughput(L.Callback):
    """Measure training images per second over all ranks.

    Time spent on validation does not count, time spent on diagnostics does. The average over all of training is in
    the summary; W&B also gets the rate since the previous logging step as `throughput/images_per_second`.
    `metrics.csv` does not: its numbers are the same in every repetition of a run.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._since: float | None = None
        self._logged_at = 0
        self._logged = (0, 0.0)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the images of the global batch, and log the rate at logging steps."""
        self.images += len(batch[0]) * trainer.world_size
        step = trainer.global_step
        if step != self._logged_at and step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer, step)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for the validation."""
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Restart the clock if training continues."""
        self._since = time.perf_counter() if trainer.state.fn == TrainerFn.FITTING else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    @property
    def images_per_second(self) -> float:
        """Training images per second so far; NaN before the first batch."""
        total = self._total()
        return self.images / total if total else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Return the totals, so that a resumed run reports all of its training."""
        return {"images": self.images, "seconds": self._total()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from the totals of the checkpoint."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]
        self._logged = (self.images, self.seconds)

    def _log(self, trainer: L.Trainer, step: int) -> None:
        """Log the rate since the previous logging step."""
        before, self._logged, self._logged_at = self._logged, (self.images, self._total()), step
        images, seconds = self._logged[0] - before[0], self._logged[1] - before[1]
        if seconds > 0:
            for logger in wandb_loggers(trainer):
                logger.log_metrics({"throughput/images_per_second": images / seconds}, step=step)

    def _stop(self) -> None:
        self.seconds, self._since = self._total(), None

    def _total(self) -> float:
        """Return the seconds of training so far."""
        return self.seconds + (0.0 if self._since is None else time.perf_counter() - self._since)
