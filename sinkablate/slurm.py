"""What a run under SLURM does differently: our own requeueing, and every task in one training."""

import os
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only

from sinkablate.errors import UserError

RUN_DIR_FILE = "SINKABLATE_RUN_DIR_FILE"
"""Environment variable: a file to write the run directory to, for the job script that looks for markers there."""


def tell_job_script(run_dir: Path) -> None:
    """Say where this run is, if somebody wants to know."""
    file = os.environ.get(RUN_DIR_FILE)
    if file and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        Path(file).write_text(f"{run_dir.absolute()}\n")


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
        raise UserError(f"trainer.devices times trainer.num_nodes is {trainer.world_size}, but SLURM started {tasks} "
                        "tasks: they would train the same run side by side")
