"""Settings of a run under SLURM: no requeueing by Lightning, and all tasks in one training run."""

import os
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from sinkablate.errors import UserError


def slurm_plugins() -> list[Any]:
    """Lightning's SLURM environment without its requeueing, which would save inside a signal handler."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def require_all_tasks(trainer: L.Trainer) -> None:
    """Check that the tasks that SLURM started train one run together, and do not each train it alone.

    Raises:
        UserError: The number of processes of the trainer differs from the number of tasks.
    """
    tasks = os.environ.get("SLURM_NTASKS")
    if SLURMEnvironment.detect() and tasks and int(tasks) != trainer.world_size:
        raise UserError(
            f"trainer.devices times trainer.num_nodes is {trainer.world_size}, but SLURM started {tasks} "
            "tasks, which would train the same run several times; request as many tasks as processes"
        )
