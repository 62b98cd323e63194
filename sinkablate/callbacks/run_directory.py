"""Create the run directory when training starts."""

from pathlib import Path

import lightning as L
import yaml
from filelock import FileLock
from torch import nn

from sinkablate.loggers.csv import MetricsCsv
from sinkablate.run.directory import lock_directory, prepare_directory, unlock_directory
from sinkablate.vit.positions import position_notes
from sinkablate.vit.weights_origin import loading_notes, unused_weights_notes


class RunDirectory(L.Callback):
    """Write `config.yaml` and remove the files of an earlier run, once nothing can be refused any more.

    Data, model, checkpoint and optimizer exist when the hook is called, so a refused `fit` writes nothing.

    Args:
        run_dir: Directory of the run.
        config: The resolved configuration as YAML.
        resumes: True when the run continues from a checkpoint; then nothing is removed.
    """

    def __init__(self, run_dir: Path, config: str, *, resumes: bool) -> None:
        self.run_dir = run_dir
        self.config = config
        self.resumes = resumes
        self._lock: FileLock | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create and lock the directory, then give the configuration to the loggers."""
        if trainer.is_global_zero:
            self._lock = lock_directory(self.run_dir, "run_dir")
            prepare_directory(self.run_dir, self.config, resumes=self.resumes)
            usage = getattr(trainer.datamodule, "usage", None)  # type: ignore[attr-defined]  # a toy has none
            backbone = getattr(pl_module, "backbone", None)
            keys = yaml.safe_load(self.config).get("model", {}).get("backbone", {})
            unused = [] if self.resumes else unused_weights_notes(keys)
            notes = [*loading_notes(backbone), *position_notes(backbone)] if isinstance(backbone, nn.Module) else []
            for note in [*unused, *notes, *(usage.notes(trainer) if usage else ())]:
                print(note, flush=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(self.config))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Unlock the directory."""
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Unlock the directory, because no teardown follows an exception."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            unlock_directory(self._lock)
            self._lock = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Drop the metrics that an interrupted run logged after the step that this one resumes from."""
        for logger in trainer.loggers if self.resumes else ():
            if isinstance(logger, MetricsCsv):
                logger.rewind(trainer.global_step)
