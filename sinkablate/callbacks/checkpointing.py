"""When a run saves itself: after each epoch, as often as asked for on top of that, and where its training ends."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.run.checkpoints import saved_step
from sinkablate.run.directory import FINAL, LAST


class RunCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint` for runs that resume exactly and always keep their final weights.

    `every_n_train_steps` and `train_time_interval` add to the checkpoint after each epoch; Lightning's replace it.
    Checkpoints are saved at step boundaries only, and the one at the end of an epoch after its validation, so that a
    resumed run has nothing to repeat and misses nothing.
    """

    @property
    def state_key(self) -> str:
        """How often checkpoints are written may change when a run is resumed; what they are ranked by may not."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Find the earlier checkpoints of a run that was moved in its new directory."""
        assert self.dirpath is not None
        folder, best = Path(self.dirpath), state_dict["best_model_path"]
        if best and (folder / Path(best).name).exists():

            def here(path: str) -> str:
                return str(folder / Path(path).name) if path else path

            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": here(best),
                "kth_best_model_path": here(state_dict["kth_best_model_path"]),
                "last_model_path": here(state_dict["last_model_path"]),
                "best_k_models": {here(path): score for path, score in state_dict["best_k_models"].items()},
            }
        super().load_state_dict(state_dict)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save a step that is due once its gradient is whole; the epoch's last step waits for the validation."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look whether the weights are among the best; the end of the training is saved when that is over."""
        if self.monitor is not None or not trainer.fit_loop.done:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save each epoch that is due, whether or not it was validated: Lightning leaves out those that were not."""
        super().on_train_epoch_end(trainer, pl_module)
        adds = self._every_n_train_steps > 0 or self._train_time_interval is not None
        every = 1 if adds else self._every_n_epochs
        fresh = self.monitor is None or self._should_save_on_train_epoch_end(trainer)  # else the metric is an old one
        if (
            every
            and (trainer.current_epoch + 1) % every == 0
            and fresh
            and not self._should_skip_saving_checkpoint(trainer)
        ):
            candidates = self._monitor_candidates(trainer)
            self._save_topk_checkpoint(trainer, candidates)
            if self._last_global_step_saved == trainer.global_step:
                self._save_last_checkpoint(trainer, candidates)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the final weights unless `last.ckpt` leads to them already; every rank takes part."""
        super().on_train_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        last, final = Path(self.dirpath) / LAST, Path(self.dirpath) / FINAL
        if isinstance(trainer.strategy.checkpoint_io, AtomicCheckpointIO):
            trainer.strategy.checkpoint_io.wait()
        missing = trainer.is_global_zero and saved_step(last) != trainer.global_step
        if trainer.strategy.reduce_boolean_decision(missing, all=False):
            self._save_checkpoint(trainer, str(final))
        elif trainer.is_global_zero and last.resolve() != final.resolve():
            final.unlink(missing_ok=True)  # of a shorter training that this one went on from
