"""Stop a run on a signal: all ranks at the same step, with a checkpoint, and with exit code 75 or 130."""

from pathlib import Path
from typing import Any

import lightning as L

from sinkablate.files.writing import write_json
from sinkablate.process import signals
from sinkablate.run.checkpoint_io import wait_for_checkpoint
from sinkablate.run.directory import PREEMPTED


class Preemption(L.Callback):
    """Check before every optimizer step whether any rank received a signal; if so, save a checkpoint and stop.

    The check is at the start of the first micro-batch of a step. The validation of the epoch and all hooks of the
    previous step are over by then, so the resumed run repeats nothing.

    Args:
        run_dir: Directory of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.restarts = 0
        """Number of times this run was resumed from a checkpoint."""

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back from Lightning, whose handler would end the run with exit code 0."""
        self._own_signals(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals back in runs without a sanity check, and remove the marker of a stopped run."""
        self._own_signals(trainer)
        if trainer.is_global_zero:
            (self.run_dir / PREEMPTED).unlink(missing_ok=True)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save a checkpoint and stop if a signal arrived."""
        loop = trainer.fit_loop.epoch_loop
        if self.restarts and not loop.automatic_optimization.optim_progress.optimizer.step.current.completed:
            loop._batches_that_stepped = trainer.global_step  # Lightning counts one too many when it resumes
        if batch_idx % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(signals.received() is not None, all=False):
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let signals end the process at once: there is nothing left to save."""
        signals.training_ended()

    def _stop(self, trainer: L.Trainer) -> None:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        progress.is_last_batch = False  # the current batch was fetched and will be fetched again
        for count in (progress.current, progress.total):
            count.ready -= 1
        path = self.run_dir.absolute() / "checkpoints" / "stopped.ckpt"
        trainer.save_checkpoint(path)
        wait_for_checkpoint(trainer.strategy.checkpoint_io)
        for logger in trainer.loggers:
            logger.after_save_checkpoint(None)  # type: ignore[arg-type]
        if trainer.is_global_zero:
            why = signals.received() or "a signal to another rank"
            write_json(self.run_dir / PREEMPTED, {"signal": why, "step": trainer.global_step})
            print(
                f"stopped by {why} and saved at step {trainer.global_step}; the same command with --ckpt_path auto "
                "resumes it",
                flush=True,
            )
        trainer.strategy.barrier()
        raise signals.Preempted

    def _own_signals(self, trainer: L.Trainer) -> None:
        signals.install_handlers(training=True)
        trainer._signal_connector.received_sigterm = False

    def state_dict(self) -> dict[str, Any]:
        """Return the number of times the run was resumed."""
        return {"restarts": self.restarts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count this start as one more resumption."""
        self.restarts = state_dict["restarts"] + 1
