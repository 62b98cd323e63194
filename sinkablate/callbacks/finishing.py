"""Validate the final weights, even if the process died after its last checkpoint and before it closed the run."""

import lightning as L
from lightning.pytorch.loops.fit_loop import _FitLoop


class FinalValidation(L.Callback):
    """Validate the final weights if the last validation was of earlier ones, so that the summary describes them."""

    def __init__(self) -> None:
        self._validated_at: int | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Remember which step was validated."""
        if not trainer.sanity_checking:
            self._validated_at = trainer.global_step

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate as Lightning does within an epoch; the metrics belong to the row of the last step."""
        if not trainer.enable_validation or self._validated_at == trainer.global_step:
            return
        loop = trainer.fit_loop.epoch_loop
        stepped, loop._batches_that_stepped = loop._batches_that_stepped, max(0, trainer.global_step - 1)
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
        loop._batches_that_stepped = stepped


class FitLoop(_FitLoop):
    """Lightning's fit loop, which also finishes a run that has no steps left.

    A process can die between its last checkpoint and the file `DONE`. When such a run is resumed, Lightning calls no
    hook at all; this loop starts and ends the training without a step, so that validation, diagnostics and summary of
    the final weights are made.
    """

    def run(self) -> None:
        """Train, or only call the hooks at the start and at the end."""
        self.setup_data()
        if self.trainer.ckpt_path and self.done:
            self.on_run_start()
            self.on_run_end()
        else:
            super().run()


def close_completed(trainer: L.Trainer) -> None:
    """Replace the fit loop of a trainer with the one that finishes a run that has no steps left."""
    loop = FitLoop(trainer, min_epochs=trainer.fit_loop.min_epochs, max_epochs=trainer.fit_loop.max_epochs)
    loop.epoch_loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop = loop
