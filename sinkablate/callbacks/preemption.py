"""Stops a run that was asked to stop: all ranks at one step boundary, with a checkpoint, and exit code 75 or 130."""

from pathlib import Path
from typing import Any

import lightning as L

from sinkablate.files.writing import write_json
from sinkablate.process import signals
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.run.directory import PREEMPTED


class Preemption(L.Callback):
    """Looks at every step boundary whether a signal came in, to any rank.

    The boundary is the start of a batch that begins an accumulation: the epoch's validation and every hook of the
    step before are over, so that the resumed run has nothing left to repeat.

    Args:
        run_dir: Directory of the run.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.restarts = 0
        """How often this run was begun from a checkpoint."""

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning has put a handler of its own in front, which would end the run with exit code 0."""
        self._own_signals(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """As before the sanity check, which not every run has; the run is no longer a stopped one."""
        self._own_signals(trainer)
        if trainer.is_global_zero:
            (self.run_dir / PREEMPTED).unlink(missing_ok=True)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save and leave, if it was asked for."""
        loop = trainer.fit_loop.epoch_loop
        if self.restarts and not loop.automatic_optimization.optim_progress.optimizer.step.current.completed:
            loop._batches_that_stepped = trainer.global_step  # Lightning counts one too many when it resumes
        if batch_idx % trainer.accumulate_grad_batches:
            return
        if trainer.strategy.reduce_boolean_decision(signals.received() is not None, all=False):
            self._stop(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Nothing is left to be saved."""
        signals.training_ended()

    def _stop(self, trainer: L.Trainer) -> None:
        progress = trainer.fit_loop.epoch_loop.batch_progress
        progress.is_last_batch = False  # the batch at hand was fetched and will be fetched again
        for count in (progress.current, progress.total):
            count.ready -= 1
        path = self.run_dir.absolute() / "checkpoints" / "stopped.ckpt"
        trainer.save_checkpoint(path)
        if isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            trainer.strategy.checkpoint_io.wait()
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
        """How often the run was resumed."""
        return {"restarts": self.restarts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Once more."""
        self.restarts = state_dict["restarts"] + 1
