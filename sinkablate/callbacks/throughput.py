"""How fast the training runs."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn


class Throughput(L.Callback):
    """Measures training images per second over all ranks, validation not counted, diagnostics counted."""

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0
        self._since: float | None = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the global batch."""
        self.images += len(batch[0]) * trainer.world_size

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock for validation."""
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on."""
        self._since = time.perf_counter() if trainer.state.fn == TrainerFn.FITTING else None

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
