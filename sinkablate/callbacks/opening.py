"""Opens the run directory when training begins."""

from pathlib import Path

import lightning as L
import yaml

from sinkablate.loggers.csv import MetricsCsv
from sinkablate.run_directory import prepare


class Opening(L.Callback):
    """Writes `config.yaml`, and clears what an earlier run left, once all that can be refused has been checked.

    Data, model, checkpoint and optimiser are ready at this hook, so that a `fit` that is refused writes nothing.

    Args:
        run_dir: Directory of the run.
        config: The resolved configuration as YAML.
        resumes: True when the run continues from a checkpoint: nothing is cleared.
    """

    def __init__(self, run_dir: Path, config: str, *, resumes: bool) -> None:
        self.run_dir = run_dir
        self.config = config
        self.resumes = resumes

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the directory, then tell the loggers the configuration."""
        if trainer.is_global_zero:
            prepare(self.run_dir, self.config, resumes=self.resumes)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(self.config))

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The step is known only now: what was logged past it belongs to the run that broke off."""
        for logger in trainer.loggers if self.resumes else ():
            if isinstance(logger, MetricsCsv):
                logger.rewind(trainer.global_step)
