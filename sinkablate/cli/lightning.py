"""The commands fit, validate, test and predict: LightningCLI with one directory per run and one-line errors."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import polars as pl
from jsonargparse import Namespace
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from sinkablate.callbacks.finishing import FinalValidation, close_completed
from sinkablate.callbacks.nan_guard import NanGuard
from sinkablate.callbacks.preemption import Preemption
from sinkablate.callbacks.progress import progress_callback
from sinkablate.callbacks.random_state import RandomState
from sinkablate.callbacks.run_directory import RunDirectory
from sinkablate.callbacks.start_drift import StartDrift
from sinkablate.callbacks.throughput import Throughput
from sinkablate.cli.group_help import group_help, help_group
from sinkablate.cli.parser import Parser, config_groups, refuse_nulls, spelled_out
from sinkablate.cli.results import print_results, print_scores, refuse_foreign_result, write_predictions
from sinkablate.cli.run_arguments import add_reader_arguments, add_run_arguments
from sinkablate.cli.summary import fit_summary
from sinkablate.cli.tasks import TASKS, task_of
from sinkablate.cli.trainer_options import TRAINER_DEFAULTS, check_options, check_trainer, refused_by_lightning
from sinkablate.config import build
from sinkablate.distributed.fsdp2 import require_shardable
from sinkablate.errors import UserError
from sinkablate.files.writing import naming, write_json
from sinkablate.loggers.csv import MetricsCsv
from sinkablate.loggers.wandb import wandb_logger
from sinkablate.process import streams
from sinkablate.process.job_script import report_run_dir
from sinkablate.process.slurm import require_all_tasks, slurm_plugins
from sinkablate.process.threads import considerate_threads
from sinkablate.run import trust
from sinkablate.run.cells import cell_id, configs_first, variant_name
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.run.checkpoints import require_final_weights
from sinkablate.run.directory import RESULTS, finish_run, require_writable
from sinkablate.run.resume import checkpoint_to_load


class LightningParser(Parser, LightningArgumentParser):
    """Lightning's parser with one-line errors."""


class Cli(LightningCLI):
    """Run one command on one run directory.

    Args:
        command: fit, validate, test or predict.
        args: The words of the command line after the command.
    """

    def __init__(self, command: str, args: list[str]) -> None:
        self.command = command
        self.words = args = configs_first(args)
        if command != "fit":
            trust.require_trusted_files(args)
        self.started = time.time()
        self.task_name = task_of(args)
        if (command, self.task_name) == ("predict", "toy"):
            raise UserError(
                "task=toy: predict writes class probabilities of images, which a toy does not have; use validate for "
                "its error and the effect of its sink"
            )
        self.task = TASKS[self.task_name]()
        super().__init__(
            self.task.module,
            self.task.data,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=LightningParser,
            args=[command, *args],
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"parser_mode": "omegaconf+", "allow_abbrev": False},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Return only the current command, because building each parser takes a second."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the seed, which is always a number: a run without a seed cannot be paired with another."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="Seed for parameters, data order, augmentation and everything else.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the keys of a run that are not Lightning's."""
        add_run_arguments(parser, self.task_name, self.task.links)
        if self.command != "fit":
            add_reader_arguments(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse and build every config group, so that `--print_config` refuses whatever a run would refuse."""
        if (group := help_group(args)) is not None:
            print(group_help(self._parser(self.command), group))
            raise SystemExit(0)
        if self.command in ("validate", "test"):
            self._parser(self.command).set_defaults({"verbose": False})  # Lightning's table shows unrounded numbers
        args = [args[0], *spelled_out(self._parser(self.command), args[1:])]
        without_print = [arg for arg in args if not arg.startswith("--print_config")]
        super().parse_arguments(parser, without_print)
        if self.command != "fit" and self.task_name != "toy":
            trust.require_trusted_locations(args, self.config[self.command].data.source)
        config = self.config[self.command]
        self.check(config)
        for link in self.task.links:  # values that were null are known now and are stored with the run
            config.data[link.source] = config.model[link.target]
        if without_print != args:
            super().parse_arguments(parser, args)  # prints the config and exits

    def check(self, config: Namespace) -> None:
        """Build every config group of parsed keys, and check the keys that belong to no group.

        Raises:
            UserError: A value of the right type makes no sense, alone or in combination with another one.
        """
        refuse_nulls(self._parser(self.command), config)
        for key, config_class in config_groups(self._parser(self.command)).items():
            build(config_class, config[key].as_dict(), key)
        check_options(config)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would silently replace the user's keys with those of the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Name the run, check its directory, and choose the checkpoint to start from."""
        config = self.config[self.command]
        self.cell: str | None = None
        if config.sweep:
            self._name_cell(config)
        self.name = f"{self.task.model_name(config.model)}-{config.variant}-s{config.seed_everything}"
        config.run_dir = config.run_dir or f"runs/{self.name}"
        self.run_dir = Path(config.run_dir)
        require_writable(self.run_dir)
        if self.command != "fit":
            refuse_foreign_result(self.command, self.run_dir)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            report_run_dir(self.run_dir)
        config.ckpt_path = checkpoint_to_load(self.command, self.run_dir, config, lambda: self._resolved(config))

    def _name_cell(self, config: Namespace) -> None:
        """Derive the directory, the variant, and W&B's id and group of a cell of a sweep from its arguments."""
        cell = cell_id(self.words)
        config.run_dir = config.run_dir or f"runs/{config.sweep}/{cell}"
        config.variant = variant_name(self.words, config.variant)
        config.wandb.group = config.wandb.group or config.sweep
        self.cell = f"{config.sweep}-{cell}"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """Build the trainer with the callbacks and loggers of a run; W&B only logs training."""
        config = self.config[self.command]
        self.throughput = Throughput()
        drift = StartDrift(resumes=bool(config.ckpt_path))
        callbacks: list[Any] = [self.throughput, NanGuard(), RandomState(), drift]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(progress_callback(self.throughput))
        loggers: list[Any] = []
        if self.command == "fit":
            tags = tuple(f"{axis}:{value}" for axis, value in self.task.mechanism(config.model).items())
            wandb = wandb_logger(self.config_init[self.command].wandb, config.run_dir, self.name, tags, self.cell)
            loggers = [MetricsCsv(config.run_dir), *([wandb] if wandb else [])]
            callbacks += [Preemption(self.run_dir), FinalValidation()]
            callbacks.insert(0, RunDirectory(self.run_dir, self._resolved(config), resumes=bool(config.ckpt_path)))
        self._get(self.config_init, "checkpoint").dirpath = str(self.run_dir.absolute() / "checkpoints")
        options = self._get(self.config_init, "trainer")
        checkpoints = AtomicCheckpointIO(config.on_checkpoint_failure)
        options["plugins"] = [*_as_list(options.get("plugins")), checkpoints, *slurm_plugins()]
        options["callbacks"] = [*(options.get("callbacks") or []), *callbacks]
        try:
            trainer = super().instantiate_trainer(logger=loggers or False, default_root_dir=config.run_dir, **kwargs)
        except UserError:
            raise
        except Exception as error:
            raise refused_by_lightning(error, config.trainer) from error
        close_completed(trainer)
        require_all_tasks(trainer)
        check_trainer(trainer, config, self.task.group if self.command == "fit" else None)
        require_shardable(trainer, self.model)
        return trainer

    def _run_subcommand(self, subcommand: str) -> None:
        """Run with the CPU threads that this machine can spare."""
        if self.config[self.command].trainer.enable_progress_bar is not False:
            streams.show_status("preparing ...")  # until the progress bar starts
        with considerate_threads(self.trainer.num_devices):
            super()._run_subcommand(subcommand)

    def _resolved(self, config: Namespace) -> str:
        """Return the config as YAML without the keys of this start alone: it repeats the run and overwrites nothing."""
        stored = config.clone()
        stored.ckpt_path, stored.sweep, stored.overwrite = None, None, False
        text: str = self._parser(self.command).dump(stored, skip_unset=False, skip_link_targets=False)
        return text

    def after_fit(self) -> None:
        """Write and print the summary, and close the run."""
        summary = fit_summary(
            self.trainer,
            self.model,
            self.datamodule,
            self.config_init[self.command],
            name=self.name,
            images_per_second=self.throughput.images_per_second,
            seconds=time.time() - self.started,
        )
        if self.trainer.is_global_zero and not self.trainer.interrupted:
            require_final_weights(self.run_dir, self.trainer.global_step)
            history = pl.read_csv(self.run_dir / "metrics.csv", infer_schema_length=None)
            if hasattr(self.model, "findings"):
                summary |= self.model.findings(history)
            if draw := self.task.draw:
                with naming(self.run_dir / "figures"):
                    draw(history, self.run_dir / "figures")
            finish_run(self.run_dir, summary)
            print_results(self.run_dir, summary)

    def after_validate(self) -> None:
        """Write and print the numbers of `validate` and `test`."""
        metrics = {key: float(value) for key, value in self.trainer.callback_metrics.items()}
        if self.trainer.is_global_zero:
            path = self.run_dir / RESULTS[self.command]
            with naming(self.run_dir):
                self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, metrics)
            print_scores(f"{self.command}: {self.name}", metrics, path)

    after_test = after_validate

    def predict(self, **kwargs: Any) -> None:
        """Write the predictions of all ranks into one parquet file."""
        batches: Any = self.trainer.predict(**kwargs | {"return_predictions": True})
        path = write_predictions(self.run_dir / RESULTS[self.command], batches or [], self.trainer)
        if self.trainer.is_global_zero:
            print(f"predictions: {path}")


def _as_list(value: Any) -> list[Any]:
    """Return plugins, which Lightning takes as one, a list or None, as a list."""
    return [] if value is None else value if isinstance(value, list) else [value]
