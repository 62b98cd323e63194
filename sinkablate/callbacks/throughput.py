"""How fast the training runs, and what it says about it on the way."""

import sys
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_only

from sinkablate.memory import peak_memory_gib


class Throughput(L.Callback):
    """Measures training images per second over all ranks, validation not counted, diagnostics counted."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._since: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
        """Count the global batch."""
        self.images += len(batch[0]) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for validation."""
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on."""
        self._since = time.perf_counter() if trainer.training else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def _stop(self) -> None:
        if self._since is not None:
            self.seconds += time.perf_counter() - self._since
            self._since = None

    @property
    def images_per_second(self) -> float:
        """Training images per second so far; NaN before the first batch."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        total = self.seconds + running
        return self.images / total if total else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Totals, so that a resumed run reports all of itself."""
        running = 0.0 if self._since is None else time.perf_counter() - self._since
        return {"images": self.images, "seconds": self.seconds + running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the totals."""
        self.images, self.seconds = state_dict["images"], state_dict["seconds"]


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"


def progress_callback(throughput: Throughput) -> ProgressBar:
    """A bar on a terminal, one line per logging interval in a file."""
    return Bar(throughput) if sys.stderr.isatty() else Lines(throughput)


class Bar(TQDMProgressBar):
    """Lightning's bar with images per second."""

    def __init__(self, throughput: Throughput) -> None:
        super().__init__(leave=True)
        self.throughput = throughput

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The logged values and the speed."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        return {**items, "img/s": f"{self.throughput.images_per_second:.0f}"}


class Lines(ProgressBar):
    """One line now and then: epoch, step, loss, images/s, time left, peak memory."""

    def __init__(self, throughput: Throughput, every_seconds: float = 10.0) -> None:
        super().__init__()
        self.throughput = throughput
        self.every_seconds = every_seconds
        self._last = 0.0
        self._first: tuple[float, int] | None = None

    def disable(self) -> None:
        """Nothing to switch off."""

    def enable(self) -> None:
        """Nothing to switch on."""

    @rank_zero_only
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
                           batch_idx: int) -> None:
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
        print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}/{total:.0f}  "
              f"loss {float(loss):.3f}  {self.throughput.images_per_second:.0f} images/s  {left} left  "
              f"{peak_memory_gib():.1f} GiB", flush=True)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the accuracy of the epoch."""
        acc = trainer.callback_metrics.get("val/acc1")
        if acc is not None and trainer.training:
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  val/acc1 {float(acc):.4f}", flush=True)
