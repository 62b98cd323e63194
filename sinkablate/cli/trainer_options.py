"""What a run cannot do of what Lightning's trainer offers, and one line for whatever Lightning refuses itself."""

import os
import re
from importlib.util import find_spec
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, Timer
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from sinkablate.config import require, require_finite, require_nonempty
from sinkablate.errors import UserError
from sinkablate.process.cpus import usable_cpus

EMPTY = {f"data.source.{split}" for split in ("train", "val", "test")}
"""Keys whose default is empty; elsewhere an empty word is a shell variable that is not set."""
OURS = {"logger": "wandb.*", "default_root_dir": "run_dir"}
"""Keys of the trainer that the run sets, and what to use instead."""
AT_LEAST = {
    "accumulate_grad_batches": 1,
    "log_every_n_steps": 1,
    "check_val_every_n_epoch": 1,
    "min_epochs": 0,
    "min_steps": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "gradient_clip_val": 0,
}
"""Smallest values of keys with which Lightning divides, or which it takes without a check."""
INSTEAD = {
    "fast_dev_run": "a run keeps its checkpoint and its record; --trainer.limit_train_batches 2 "
    "--trainer.limit_val_batches 1 --trainer.max_epochs 1 is a quick check",
    "barebones": "a run keeps its checkpoint and its record; benchmarks/ measures the speed without them",
}
"""Switches that would leave a run without its record, and what to do instead."""
PROCESSES_PER_CPU = 4


def check_options(config: Namespace) -> None:
    """Refuse what cannot be part of a run, before anything is built.

    Args:
        config: All keys and values; those of the config classes have been checked by these.

    Raises:
        UserError: Names the key.
    """
    values = _own(config.as_dict())
    require_finite(values)
    require_nonempty(values, EMPTY)
    _check_trainer_keys(config.trainer)
    _check_checkpoint_name(config.checkpoint.filename)
    require(config.checkpoint.dirpath is None, "checkpoint.dirpath is set by the run itself; use run_dir")


def _own(tree: Any) -> Any:
    """Nested values without the arguments of callbacks and plugins, which have rules of their own."""
    if isinstance(tree, dict):
        return {key: _own(value) for key, value in tree.items() if key != "init_args"}
    return [_own(value) for value in tree] if isinstance(tree, list) else tree


def _check_trainer_keys(config: Namespace) -> None:
    for key, instead in OURS.items():
        require(config[key] is None, f"trainer.{key} is set by the run itself; use {instead}")
    for key, instead in INSTEAD.items():
        require(not config[key], f"trainer.{key}={config[key]}: {instead}")
    for key, least in AT_LEAST.items():
        value = config[key]
        require(value is None or value >= least, f"trainer.{key} must be at least {least}, got {value}")
    require(
        config.profiler != "xla" or find_spec("torch_xla") is not None,
        "trainer.profiler=xla needs the package torch_xla",
    )
    interval = config.val_check_interval
    require(
        not isinstance(interval, int | float) or interval > 0,
        f"trainer.val_check_interval must be above 0, got {interval}; trainer.limit_val_batches=0 trains without "
        "validation",
    )


def refused_by_lightning(error: Exception, config: Namespace) -> UserError:
    """One line for what Lightning raised while it built a trainer.

    Args:
        error: Of any kind: it raises seven for values that it does not take, or whose package is not installed.
        config: Keys and values of the group `trainer`.
    """
    message = " ".join(str(error).split())
    keys = [key for key in config.as_dict() if key != "callbacks" and re.search(rf"\b{key}\b", message)] or [
        key
        for key in ("accelerator", "devices", "strategy", "num_nodes", "precision", "plugins", "callbacks")
        if config[key] not in (None, 1, "auto")
    ]
    named = ", ".join(f"trainer.{key}={config[key]}" for key in keys) or "trainer"
    return UserError(f"{named}: {message or type(error).__name__}")


def check_trainer(trainer: L.Trainer, config: Namespace) -> None:
    """Refuse what can be told only of a trainer that Lightning has built.

    Args:
        trainer: The trainer.
        config: Keys and values of the group `trainer`.

    Raises:
        UserError: There is no time to train, or processes would wait for each other forever or lose what they record.
    """
    _require_processes(trainer, config)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            raise UserError(
                f"trainer.callbacks: {type(callback).__name__} trains before the run, which then does not "
                "start as its config says; sweep model.optim.lr or data.batch_size instead"
            )
        if isinstance(callback, Timer) and callback.time_remaining() == 0:
            raise UserError("trainer.max_time: no time to train; the form is DD:HH:MM:SS")


def _require_processes(trainer: L.Trainer, config: Namespace) -> None:
    """See that the processes of a training can find each other, and that this machine can run them."""
    strategy, environment = trainer.strategy, trainer._accelerator_connector.cluster_environment
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={config.strategy}: what its processes record would be lost when they end; use ddp"
        )
    if not isinstance(environment, LightningEnvironment):  # started by SLURM, torchrun or another launcher
        return
    if trainer.num_nodes > 1 and not {"MASTER_ADDR", "NODE_RANK"} <= os.environ.keys():
        raise UserError(
            f"trainer.num_nodes={trainer.num_nodes}: this process was not started by SLURM or torchrun and "
            "cannot find the other nodes; start it with srun or torchrun, or set MASTER_ADDR, MASTER_PORT "
            "and NODE_RANK on each node"
        )
    most = PROCESSES_PER_CPU * usable_cpus()
    if strategy.root_device.type == "cpu" and trainer.num_devices > most:
        raise UserError(
            f"trainer.devices={trainer.num_devices}: {usable_cpus()} CPUs can be used here, and at most "
            f"{PROCESSES_PER_CPU} processes on each"
        )


def _check_checkpoint_name(name: str | None) -> None:
    """See that `checkpoint.filename` names files in the folder of checkpoints, with whatever values it takes in.

    Raises:
        UserError: It leads elsewhere, or Python cannot fill it in.
    """
    fixed = re.sub(r"\{[\w/.]+(:\.?\d*[defg]?)?\}", "", name or "")
    require(
        re.fullmatch(r"[\w.+= -]*", fixed) is not None and not fixed.startswith(".") and len(name or "") <= 128,
        f"checkpoint.filename={name}: use letters, digits and . _ + = -, and values as {{step}} or "
        "{val/acc1:.3f}; the folder is that of the run",
    )
    require(
        not re.search(r"\{(?!(epoch|step):)[^}]*d\}", name or ""),
        f"checkpoint.filename={name}: only epoch and step are whole numbers; use f, as in {{val/acc1:.3f}}",
    )
