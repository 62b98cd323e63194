"""The end of a training: its final weights are validated, also where the process died before it could close the run."""

import lightning as L
from lightning.pytorch.loops.fit_loop import _FitLoop


class FinalValidation(L.Callback):
    """Validates the final weights where the last validation was of earlier ones, so that the summary speaks of them."""

    def __init__(self) -> None:
        self._validated_at: int | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note which step was validated."""
        if not trainer.sanity_checking:
            self._validated_at = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate as Lightning does within an epoch; the numbers belong to the row of the last step."""
        if not trainer.enable_validation or self._validated_at == trainer.global_step:
            return
        loop = trainer.fit_loop.epoch_loop
        stepped, loop._batches_that_stepped = loop._batches_that_stepped, max(0, trainer.global_step - 1)
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        loop._batches_that_stepped = stepped


class FitLoop(_FitLoop):
    """Lightning's loop, which also closes a training that has no step left.

    A process can die between its last checkpoint and `DONE`. Lightning would then leave out every hook; here the
    training starts and ends without a step, so that what the end does is done: validation, measurement, summary.
    """

    def run(self) -> None:
        """Train, or only start and end."""
        self.setup_data()
        if self.trainer.ckpt_path and self.done:
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()


def close_completed(trainer: L.Trainer) -> None:
    """Give a trainer the loop that closes a completed training."""
    loop = FitLoop(trainer, min_epochs=trainer.fit_loop.min_epochs, max_epochs=trainer.fit_loop.max_epochs)
    loop.epoch_loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop = loop
