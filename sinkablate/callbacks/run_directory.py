"""Opens the run directory when training begins."""

from pathlib import Path

import lightning as L
import yaml
from filelock import FileLock

from sinkablate.loggers.csv import MetricsCsv
from sinkablate.run.directory import lock_directory, prepare_directory, unlock_directory


class RunDirectory(L.Callback):
    """Writes `config.yaml`, and clears what an earlier run left, once all that can be refused has been checked.

    Data, model, checkpoint and optimizer are ready at this hook, so that a `fit` that is refused writes nothing.

    Args:
        run_dir: Directory of the run.
        config: The resolved configuration as YAML.
        resumes: True when the run continues from a checkpoint: nothing is cleared.
    """

    def __init__(self, run_dir: Path, config: str, *, resumes: bool) -> None:
        self.run_dir = run_dir
        self.config = config
        self.resumes = resumes
        self._lock: FileLock | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the directory, then tell the loggers the configuration."""
        if trainer.is_global_zero:
            self._lock = lock_directory(self.run_dir, "run_dir")
            prepare_directory(self.run_dir, self.config, resumes=self.resumes)
            usage = getattr(trainer.datamodule, "usage", None)  # type: ignore[attr-defined]  # a toy has none
            for note in usage.notes() if usage else ():
                print(note, flush=True)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(self.config))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let others write here."""
        self._release()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Let others write here: no teardown follows."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            unlock_directory(self._lock)
            self._lock = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The step is known only now: what was logged past it belongs to the run that broke off."""
        for logger in trainer.loggers if self.resumes else ():
            if isinstance(logger, MetricsCsv):
                logger.rewind(trainer.global_step)
