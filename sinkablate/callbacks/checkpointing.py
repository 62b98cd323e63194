"""Save checkpoints after each epoch, at additional intervals, and when training ends."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from sinkablate.run.checkpoint_io import wait_for_checkpoint
from sinkablate.run.checkpoints import saved_step
from sinkablate.run.directory import FINAL, LAST


class RunCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` for runs that resume exactly and always keep their final weights.

    `every_n_train_steps` and `train_time_interval` save checkpoints in addition to the one after each epoch, whereas
    in Lightning they replace it. Checkpoints are saved only at the boundaries of optimizer steps, and an
    epoch's checkpoint only after its validation, so that a resumed run neither repeats nor misses anything.
    """

    @property
    def state_key(self) -> str:
        """Identify the callback by how checkpoints are ranked, as the saving interval may change when a run resumes."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the paths of earlier checkpoints, relative to the current directory in case the run was moved."""
        assert self.dirpath is not None
        folder, best = Path(self.dirpath), state_dict["best_model_path"]
        if best and (folder / Path(best).name).exists():

            def moved(path: str) -> str:
                return str(folder / Path(path).name) if path else path

            state_dict = state_dict | {
                "dirpath": self.dirpath,
                "best_model_path": moved(best),
                "kth_best_model_path": moved(state_dict["kth_best_model_path"]),
                "last_model_path": moved(state_dict["last_model_path"]),
                "best_k_models": {moved(path): score for path, score in state_dict["best_k_models"].items()},
            }
        super().load_state_dict(state_dict)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when due and all micro-batches of the step are done; the epoch's last step waits for its validation."""
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if whole and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the weights if they are among the best; the final weights are saved in `on_train_end`."""
        if self.monitor is not None or not trainer.fit_loop.done:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save each epoch that is due; Lightning skips those without a validation."""
        super().on_train_epoch_end(trainer, pl_module)
        adds = self._every_n_train_steps > 0 or self._train_time_interval is not None
        every = 1 if adds else self._every_n_epochs
        fresh = self.monitor is None or self._should_save_on_train_epoch_end(
            trainer
        )  # otherwise the metric is from an earlier epoch
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
        """Save the final weights unless `last.ckpt` already holds them; all ranks must take part."""
        super().on_train_end(trainer, pl_module)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        assert self.dirpath is not None
        last, final = Path(self.dirpath) / LAST, Path(self.dirpath) / FINAL
        wait_for_checkpoint(trainer.strategy.checkpoint_io)
        missing = trainer.is_global_zero and saved_step(last) != trainer.global_step
        if trainer.strategy.reduce_boolean_decision(missing, all=False):
            self._save_checkpoint(trainer, str(final))
        elif trainer.is_global_zero and last.resolve() != final.resolve():
            final.unlink(missing_ok=True)  # of a shorter run that this one continued
