"""Show the progress of a run as a bar on a terminal."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sinkablate.callbacks.progress_lines import epoch_of
from sinkablate.callbacks.throughput import Throughput
from sinkablate.process import streams


class Bar(ProgressBar):
    """Show a bar over the whole run with the time left, a second one during evaluation, and a line per epoch."""

    def __init__(self, throughput: Throughput) -> None:
        super().__init__()
        self.throughput = throughput
        self._enabled = True
        self._bar: Progress | None = None
        self._training: TaskID | None = None
        self._evaluating: TaskID | None = None
        self._loss = ""

    def disable(self) -> None:
        """Hide the bar; Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show the bar again."""
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar."""
        if self._enabled:
            self._training = self._add(
                f"epoch {epoch_of(trainer)}", trainer.estimated_stepping_batches, done=trainer.global_step
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance by a step."""
        self._show_training(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add a bar for the evaluation."""
        self._evaluate("validating", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *_: Any) -> None:
        """Advance by a batch."""
        self._advance()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar of the evaluation."""
        self._end_evaluation(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print a line with the metrics of the epoch."""
        if self._bar is not None:
            metrics = "  ".join(f"{name} {float(value):.4g}" for name, value in self._metrics(trainer).items())
            self._bar.console.print(f"epoch {epoch_of(trainer)}  {metrics}", highlight=False, markup=False)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a bar."""
        self._evaluate("testing", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *_: Any) -> None:
        """Advance by a batch."""
        self._advance()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._end_evaluation(trainer)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start a bar."""
        self._evaluate("predicting", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *_: Any) -> None:
        """Advance by a batch."""
        self._advance()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._end_evaluation(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remove the bar."""
        self._stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Remove the bar."""
        self._stop()

    def _add(self, doing: str, total: float, done: int = 0) -> TaskID:
        if self._bar is None:
            streams.clear_status()
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
        known = None if math.isinf(total) or total < 0 else total
        return self._bar.add_task(doing, total=known, completed=done, speed="", left="left" if known else "")

    def _show_training(self, trainer: L.Trainer) -> None:
        if self._bar is not None and self._training is not None:
            logs = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
            if (logs or not self._loss) and (loss := trainer.callback_metrics.get("train/loss")) is not None:
                self._loss = f"  loss {float(loss):.3f}"  # reading it waits for the device, as logging does
            self._bar.update(
                self._training,
                description=f"epoch {epoch_of(trainer)}",
                completed=trainer.global_step,
                speed=f"{self.throughput.images_per_second:.0f} images/s{self._loss}" if self.throughput.images else "",
            )

    def _evaluate(self, doing: str, total: float) -> None:
        if self._enabled:
            self._evaluating = self._add(doing, total)

    def _advance(self) -> None:
        if self._bar is not None and self._evaluating is not None:
            self._bar.advance(self._evaluating)

    def _end_evaluation(self, trainer: L.Trainer) -> None:
        if self._bar is not None and self._evaluating is not None:
            self._bar.remove_task(self._evaluating)
            self._evaluating = None
        if trainer.state.fn != TrainerFn.FITTING or self._training is None:
            self._stop()

    def _metrics(self, trainer: L.Trainer) -> dict[str, Any]:
        """Return losses and accuracies; the sink scalars are in the tables."""
        return {
            name: value
            for name, value in trainer.callback_metrics.items()
            if name.startswith(("train/", "val/")) or name == "lr"
        }

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._training = self._evaluating = None
