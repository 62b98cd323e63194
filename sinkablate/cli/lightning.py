"""fit, validate, test and predict: LightningCLI with our names, one directory per run and one-line errors."""

import re
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
from sinkablate.callbacks.throughput import Throughput
from sinkablate.cli.group_help import group_help, help_group
from sinkablate.cli.parser import Parser, config_groups, refuse_nulls, spelled_out
from sinkablate.cli.results import print_results, print_scores, write_predictions
from sinkablate.cli.run_arguments import add_run_arguments
from sinkablate.cli.summary import fit_summary
from sinkablate.cli.tasks import PROGRAMS, chosen
from sinkablate.cli.trainer_options import check_options, check_trainer, refused_by_lightning
from sinkablate.config import build, require
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
from sinkablate.run.cells import cell_id, configs_first, require_sweep_name, variant_name
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.run.checkpoints import require_final_weights
from sinkablate.run.directory import finish_run, require_writable
from sinkablate.run.resume import checkpoint_to_load

TRAINER_DEFAULTS = {
    "max_epochs": 12,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # the data module shards exactly; Lightning's sampler would pad
}


class LightningParser(Parser, LightningArgumentParser):
    """Lightning's parser with one-line errors."""


class Cli(LightningCLI):
    """One verb on one run directory."""

    def __init__(self, verb: str, args: list[str]) -> None:
        self.verb = verb
        self.words = args = configs_first(args)
        if verb != "fit":
            trust.require_trusted_files(args)
        self.started = time.time()
        self.task = chosen(args)
        if (verb, self.task) == ("predict", "toy"):
            raise UserError(
                "predict gives class probabilities of images, and task=toy has neither; validate gives its "
                "error and what its sink does"
            )
        self.program = PROGRAMS[self.task]()
        super().__init__(
            self.program.module,
            self.program.data,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=LightningParser,
            args=[verb, *args],
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            parser_kwargs={"parser_mode": "omegaconf+", "allow_abbrev": False},
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the verb at hand: each one costs a second to build."""
        return {self.verb: LightningCLI.subcommands()[self.verb]}

    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The seed, always a number: a run without one cannot be paired."""
        parser.add_argument(
            "--seed_everything",
            type=int,
            default=0,
            help="Seed of parameters, data order, augmentation and everything else.",
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The keys of the run, in addition to Lightning's."""
        add_run_arguments(parser, self.task, self.program.follows)
        if self.verb != "fit":
            parser.add_argument(
                "--run",
                type=str | None,
                default=None,
                help="Directory of the run: short for --config DIR/config.yaml --run_dir DIR.",
            )
            parser.add_argument("--trust", type=bool, default=False, help=trust.HELP)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse and build every config group, so that `--print_config` refuses what a run would refuse."""
        if (group := help_group(args)) is not None:
            print(group_help(self._parser(self.verb), group))
            raise SystemExit(0)
        if self.verb in ("validate", "test"):
            self._parser(self.verb).set_defaults({"verbose": False})  # Lightning's table is not rounded
        args = [args[0], *spelled_out(self._parser(self.verb), args[1:])]
        plain = [arg for arg in args if not arg.startswith("--print_config")]
        super().parse_arguments(parser, plain)
        if self.verb != "fit" and self.task != "toy":
            trust.require_trusted_locations(args, self.config[self.verb].data.source)
        config = self.config[self.verb]
        self.check(config)
        for follow in self.program.follows:  # what was null is known from here on, and stored with the run
            config.data[follow.source] = config.model[follow.target]
        if plain != args:
            super().parse_arguments(parser, args)  # prints and exits

    def check(self, config: Namespace) -> None:
        """Build every config group of parsed keys, and check the keys that belong to none.

        Raises:
            UserError: A value that has the right type makes no sense, alone or next to another one.
        """
        refuse_nulls(self._parser(self.verb), config)
        for key, config_class in self.config_groups().items():
            build(config_class, config[key].as_dict(), key)
        self.check_names(config)

    def config_groups(self) -> dict[str, type[Any]]:
        """The config class of every group of keys that has one."""
        return config_groups(self._parser(self.verb))

    def check_names(self, config: Namespace) -> None:
        """Keys that belong to no dataclass."""
        check_options(config)
        require(
            0 <= config.seed_everything < 2**32, f"seed_everything must lie in [0, 2^32), got {config.seed_everything}"
        )
        require(
            re.fullmatch(r"\w[\w.+=-]*", config.variant) is not None,
            f"variant={config.variant} names a directory: use letters, digits and . _ + = - only",
        )
        if config.sweep is not None:
            require_sweep_name(config.sweep, "sweep")

    def _parse_ckpt_path(self) -> None:
        """Not Lightning's: it would silently replace the user's keys by the checkpoint's."""

    def before_instantiate_classes(self) -> None:
        """Name the run and make its directory ready."""
        config = self.config[self.verb]
        self.cell: str | None = None
        if config.sweep:
            self._name_cell(config)
        model = self.program.model_name(config.model)
        self.name = f"{model}-{config.variant}-s{config.seed_everything}"
        config.run_dir = config.run_dir or f"runs/{self.name}"
        self.run_dir = Path(config.run_dir)
        require_writable(self.run_dir)
        if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            report_run_dir(self.run_dir)
        config.ckpt_path = checkpoint_to_load(self.verb, self.run_dir, config, lambda: self._resolved(config))

    def _name_cell(self, config: Namespace) -> None:
        """Directory, variant and W&B's id and group of a run of a sweep, from its arguments."""
        cell = cell_id(self.words)
        config.run_dir = config.run_dir or f"runs/{config.sweep}/{cell}"
        config.variant = variant_name(self.words, config.variant)
        config.wandb.group = config.wandb.group or config.sweep
        self.cell = f"{config.sweep}-{cell}"

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer with our loggers and callbacks; W&B only when training."""
        config = self.config[self.verb]
        self.throughput = Throughput()
        callbacks: list[Any] = [self.throughput, NanGuard(), RandomState()]
        if config.trainer.enable_progress_bar is not False:
            callbacks.append(progress_callback(self.throughput))
        loggers: list[Any] = []
        if self.verb == "fit":
            tags = tuple(f"{k}:{v}" for k, v in self.program.mechanism(config.model).items())
            wandb = wandb_logger(self.config_init[self.verb].wandb, config.run_dir, self.name, tags, self.cell)
            loggers = [MetricsCsv(config.run_dir), *([wandb] if wandb else [])]
            callbacks += [Preemption(self.run_dir), FinalValidation()]
            callbacks.insert(0, RunDirectory(self.run_dir, self._resolved(config), resumes=bool(config.ckpt_path)))
        self._get(self.config_init, "checkpoint").dirpath = str(self.run_dir.absolute() / "checkpoints")
        trainer = self._get(self.config_init, "trainer")
        trainer["plugins"] = [
            *_listed(trainer.get("plugins")),
            AtomicCheckpointIO(config.on_checkpoint_failure),
            *slurm_plugins(),
        ]
        trainer["callbacks"] = [*(trainer.get("callbacks") or []), *callbacks]
        try:
            made = super().instantiate_trainer(logger=loggers or False, default_root_dir=config.run_dir, **kwargs)
        except UserError:
            raise
        except Exception as error:
            raise refused_by_lightning(error, config.trainer) from error
        close_completed(made)
        require_all_tasks(made)
        check_trainer(made, config.trainer)
        require_shardable(made, self.model)
        return made

    def _run_subcommand(self, subcommand: str) -> None:
        """Compute with the threads that this machine has to offer."""
        if self.config[self.verb].trainer.enable_progress_bar is not False:
            streams.show_status("preparing ...")  # until the bar starts
        with considerate_threads(self.trainer.num_devices):
            super()._run_subcommand(subcommand)

    def _resolved(self, config: Namespace) -> str:
        """The configuration as YAML, less what only this start was told: it repeats the run, and overwrites nothing."""
        stored = config.clone()
        stored.ckpt_path, stored.sweep, stored.overwrite = None, None, False
        text: str = self._parser(self.verb).dump(stored, skip_unset=False, skip_link_targets=False)
        return text

    def after_fit(self) -> None:
        """Summarize and close the run."""
        summary = fit_summary(self)
        if self.trainer.is_global_zero and not self.trainer.interrupted:
            require_final_weights(self.run_dir, self.trainer.global_step)
            history = pl.read_csv(self.run_dir / "metrics.csv", infer_schema_length=None)
            if hasattr(self.model, "findings"):
                summary |= self.model.findings(history)
            if draw := self.program.draw:
                with naming(self.run_dir / "figures"):
                    draw(history, self.run_dir / "figures")
            finish_run(self.run_dir, summary)
            print_results(self.run_dir, summary)

    def after_validate(self) -> None:
        """Keep and show the numbers of `validate` and `test`."""
        metrics = {k: float(v) for k, v in self.trainer.callback_metrics.items()}
        if self.trainer.is_global_zero:
            path = self.run_dir / f"{self.verb}.json"
            with naming(self.run_dir):
                self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(path, metrics)
            print_scores(f"{self.verb}: {self.name}", metrics, path)

    after_test = after_validate

    def predict(self, **kwargs: Any) -> None:
        """Predictions of all ranks in one parquet file."""
        batches: Any = self.trainer.predict(**kwargs | {"return_predictions": True})
        path = write_predictions(self.run_dir / "predictions.parquet", batches or [], self.trainer)
        if self.trainer.is_global_zero:
            print(f"predictions: {path}")


def _listed(value: Any) -> list[Any]:
    """Plugins, of which Lightning takes one, a list or none."""
    return [] if value is None else value if isinstance(value, list) else [value]
