"""What a run under SLURM does differently: our own requeueing, and every task in one training."""

import os
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from sinkablate.errors import UserError


def slurm_plugins() -> list[Any]:
    """Lightning's SLURM environment without its requeueing, which saves inside a signal handler."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def require_all_tasks(trainer: L.Trainer) -> None:
    """See that the tasks SLURM started are one training and not several of the same.

    Raises:
        UserError: The trainer counts fewer processes than there are tasks.
    """
    tasks = os.environ.get("SLURM_NTASKS")
    if SLURMEnvironment.detect() and tasks and int(tasks) != trainer.world_size:
        raise UserError(
            f"trainer.devices times trainer.num_nodes is {trainer.world_size}, but SLURM started {tasks} "
            "tasks: they would train the same run side by side"
        )
