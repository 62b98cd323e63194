"""The DataLoader of training and evaluation."""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from sinkablate.data.samplers import EpochBatches
from sinkablate.data.samples import Sample, collate
from sinkablate.process.cpus import cpus_per_process

MOST_WORKERS = 16
"""Limit of `auto`: each worker keeps two batches in memory, and 16 decode enough for most GPUs."""


class Loader(DataLoader[Sample]):
    """torch's DataLoader, except that evaluation batches in which every sample was skipped are left out.

    It has no `__init__` of its own, because Lightning instantiates it again with the arguments of `DataLoader`.
    """

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        return (batch for batch in super().__iter__() if batch is not None)


def worker_count(workers: int | Literal["auto"], processes: int) -> int:
    """Return the number of workers of each process; `auto` leaves one of its CPUs to the training.

    Args:
        workers: The number, or `auto`.
        processes: Number of processes of the run on this machine, which share its CPUs.
    """
    return min(MOST_WORKERS, max(1, cpus_per_process(processes) - 1)) if workers == "auto" else workers


def build_loader(
    dataset: Dataset[Sample], batches: EpochBatches[Any], *, num_workers: int, pin_memory: bool
) -> DataLoader[Sample]:
    """Build a loader whose workers persist between epochs and which draws nothing from the global random state.

    Args:
        dataset: Samples by the indices that `batches` yields.
        batches: The batch sampler.
        num_workers: Number of worker processes; 0 loads in this process.
        pin_memory: Copy batches into pinned memory.
    """
    return Loader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # otherwise each iter() draws from the global generator
    )
