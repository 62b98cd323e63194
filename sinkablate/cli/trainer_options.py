"""Defaults and limits of the trainer's options, and one-line errors for whatever Lightning itself refuses."""

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
from sinkablate.run.cells import require_sweep_name

TRAINER_DEFAULTS = {
    "max_epochs": 12,
    "gradient_clip_val": 1.0,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "use_distributed_sampler": False,  # the data module shards exactly; Lightning's sampler would pad
}
EMPTY = {f"data.source.{split}" for split in ("train", "val", "test")}
"""Keys that are empty by default; an empty value of another key usually comes from an unset shell variable."""
SET_BY_RUN = {"logger": "wandb.*", "default_root_dir": "run_dir"}
"""Keys of the trainer that the run sets itself, and what to use instead."""
AT_LEAST = {
    "accumulate_grad_batches": 1,
    "log_every_n_steps": 1,
    "check_val_every_n_epoch": 1,
    "min_epochs": 0,
    "min_steps": 0,
    "reload_dataloaders_every_n_epochs": 0,
    "gradient_clip_val": 0,
}
"""Smallest valid values of keys that Lightning divides by or does not check."""
INSTEAD = {
    "fast_dev_run": "a run must write its checkpoint and metrics; for a quick check use --trainer.limit_train_batches "
    "2 --trainer.limit_val_batches 1 --trainer.max_epochs 1",
    "barebones": "a run must write its checkpoint and metrics; benchmarks/ measures the speed without them",
}
"""Switches that would leave a run without checkpoints or metrics, and what to do instead."""
PROCESSES_PER_CPU = 4


def check_options(config: Namespace) -> None:
    """Refuse values that a run cannot have, before anything is built.

    Args:
        config: All keys and values. The config classes have already checked their own.

    Raises:
        UserError: Names the key.
    """
    values = _without_init_args(config.as_dict())
    require_finite(values)
    require_nonempty(values, EMPTY)
    _check_trainer_keys(config.trainer)
    _check_checkpoint_name(config.checkpoint.filename)
    require(config.checkpoint.dirpath is None, "checkpoint.dirpath: the run sets it itself; use run_dir")
    seed = config.seed_everything
    require(0 <= seed < 2**32, f"seed_everything={seed}: must be at least 0 and less than 2^32")
    require(
        re.fullmatch(r"\w[\w.+=-]*", config.variant) is not None,
        f"variant={config.variant}: is part of a directory name; use only letters, digits and . _ + = -",
    )
    if config.sweep is not None:
        require_sweep_name(config.sweep, "sweep")


def _without_init_args(tree: Any) -> Any:
    """Return nested values without the arguments of callbacks and plugins, which check these themselves."""
    if isinstance(tree, dict):
        return {key: _without_init_args(value) for key, value in tree.items() if key != "init_args"}
    return [_without_init_args(value) for value in tree] if isinstance(tree, list) else tree


def _check_trainer_keys(config: Namespace) -> None:
    for key, instead in SET_BY_RUN.items():
        require(config[key] is None, f"trainer.{key}: the run sets it itself; use {instead}")
    for key, instead in INSTEAD.items():
        require(not config[key], f"trainer.{key}={config[key]}: {instead}")
    for key, least in AT_LEAST.items():
        value = config[key]
        require(value is None or value >= least, f"trainer.{key}={value}: must be at least {least}")
    require(
        config.profiler != "xla" or find_spec("torch_xla") is not None,
        "trainer.profiler=xla: requires the torch_xla package",
    )
    interval = config.val_check_interval
    require(
        not isinstance(interval, int | float) or interval > 0,
        f"trainer.val_check_interval={interval}: must be above 0; to train without validation use "
        "trainer.limit_val_batches=0",
    )


def refused_by_lightning(error: Exception, config: Namespace) -> UserError:
    """Turn an exception that Lightning raised while it built a trainer into one line.

    Args:
        error: An exception of any class: Lightning raises seven classes for invalid values and missing packages.
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


def check_trainer(trainer: L.Trainer, config: Namespace, trained: str | None) -> None:
    """Refuse mistakes that only show once Lightning has built the trainer.

    Args:
        trainer: The trainer.
        config: All keys and values.
        trained: Group of the model's keys with the architecture, if it is trained.

    Raises:
        UserError: There is no time to train, a callback would train before the run, processes would wait for each
            other forever or lose their metrics, or the device cannot train with the kernel of the attention.
    """
    _require_processes(trainer, config.trainer)
    device = trainer.strategy.root_device.type
    if trained and config.model[trained].attention.kernel == "flex" and device != "cuda":
        raise UserError(
            f"model.{trained}.attention.kernel=flex: FlexAttention cannot train on the device {device}, only on a GPU; "
            "use auto"
        )
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, BatchSizeFinder | LearningRateFinder):
            raise UserError(
                f"trainer.callbacks: {type(callback).__name__} trains the model before the run starts, so its config "
                "would not describe the run; sweep model.optim.lr or data.batch_size instead"
            )
        if isinstance(callback, Timer) and callback.time_remaining() == 0:
            raise UserError("trainer.max_time: no time to train; write it as DD:HH:MM:SS")


def _require_processes(trainer: L.Trainer, config: Namespace) -> None:
    """Check that the processes of a run can find each other and that this machine can run them."""
    strategy, environment = trainer.strategy, trainer._accelerator_connector.cluster_environment
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"trainer.strategy={config.strategy}: the metrics of its processes would be lost when they end; use ddp"
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
            f"trainer.devices={trainer.num_devices}: too many processes for {usable_cpus()} usable CPUs; at most "
            f"{PROCESSES_PER_CPU} per CPU are allowed"
        )


def _check_checkpoint_name(name: str | None) -> None:
    """Check that `checkpoint.filename` names files in the folder of checkpoints, whatever values are filled in.

    Raises:
        UserError: It leads to another folder, or Python cannot fill it in.
    """
    fixed = re.sub(r"\{[\w/.]+(:\.?\d*[defg]?)?\}", "", name or "")
    require(
        re.fullmatch(r"[\w.+= -]*", fixed) is not None and not fixed.startswith(".") and len(name or "") <= 128,
        f"checkpoint.filename={name}: use only letters, digits, . _ + = - and values such as {{step}} or "
        "{val/acc1:.3f}; the folder is always the run's",
    )
    require(
        not re.search(r"\{(?!(epoch|step):)[^}]*d\}", name or ""),
        f"checkpoint.filename={name}: only epoch and step are integers; use the format f, as in {{val/acc1:.3f}}",
    )
