"""A process group for commands without a Trainer, when a launcher started several processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from torch import distributed

from sinkablate.errors import UserError

WAIT = timedelta(days=2)
"""How long ranks wait for each other: the first one trains probes while the others wait."""


@contextmanager
def process_group() -> Iterator[int]:
    """Connect the processes that torchrun or srun started, for the block; yields this process's rank on its machine.

    A single process is left alone. Errors of the user must be raised on every rank (`on_every_rank`); the first one
    prints them. The group exchanges Python objects only, so it uses gloo on GPUs, too.
    """
    if max(int(os.environ.get(name) or 1) for name in ("WORLD_SIZE", "SLURM_NTASKS")) < 2:
        yield 0
        return
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    environment = TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment()
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    distributed.init_process_group(
        "gloo", rank=environment.global_rank(), world_size=environment.world_size(), timeout=WAIT
    )
    try:
        yield environment.local_rank()
    except UserError:
        if distributed.get_rank() == 0:
            raise
        raise SystemExit(2) from None  # the first rank prints the same error
    finally:
        distributed.destroy_process_group()
