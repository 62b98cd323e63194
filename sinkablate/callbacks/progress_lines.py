"""Show the progress of a run as lines, for files and job logs."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from sinkablate.callbacks.throughput import Throughput
from sinkablate.process.memory import peak_memory_gib


def clock(seconds: float) -> str:
    """Format seconds as h:mm:ss or m:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def epoch_of(trainer: L.Trainer) -> str:
    """Format the current epoch, counted from 1, and the number of epochs."""
    total = "" if trainer.max_epochs in (None, -1) else f"/{trainer.max_epochs}"
    return f"{trainer.current_epoch + 1}{total}"


class Lines(ProgressBar):
    """Print a line every few seconds: epoch, step, loss, images/s, time left, peak memory."""

    def __init__(self, throughput: Throughput, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.throughput = throughput
        self.every_seconds = every_seconds
        self._last = 0.0
        self._first: tuple[float, int] | None = None

    def disable(self) -> None:
        """Do nothing: only the first rank prints."""

    def enable(self) -> None:
        """Do nothing: the lines are always on."""

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print when the interval has passed."""
        now = time.monotonic()
        if self._first is None:
            self._first = (now, trainer.global_step)
        if now - self._last < self.every_seconds:
            return
        self._last = now
        total = trainer.estimated_stepping_batches
        begun, step = self._first
        rate = (trainer.global_step - step) / (now - begun) if now > begun else 0.0
        left = clock((total - trainer.global_step) / rate) if rate > 0 else "?"
        loss = trainer.callback_metrics.get("train/loss", float("nan"))
        print(
            f"epoch {epoch_of(trainer)}  step {trainer.global_step}/{total:.0f}  "
            f"loss {float(loss):.3f}  {self.throughput.images_per_second:.0f} images/s  {left} left  "
            f"{peak_memory_gib():.1f} GiB",
            flush=True,
        )

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the accuracy of the epoch."""
        acc = trainer.callback_metrics.get("val/acc1")
        if acc is not None and trainer.state.fn == TrainerFn.FITTING:
            print(f"epoch {epoch_of(trainer)}  val/acc1 {float(acc):.4f}", flush=True)
