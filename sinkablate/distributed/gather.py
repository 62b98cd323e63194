"""Collect Python objects from all ranks."""

from typing import TypeVar

from torch import distributed

T = TypeVar("T")


def rank_and_world() -> tuple[int, int]:
    """Return this process's rank and the number of ranks: (0, 1) without a process group."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def gather(value: T) -> list[T]:
    """Return every rank's value in the order of the ranks; all ranks must call it."""
    world = rank_and_world()[1]
    values: list[T] = [value] * world
    if world > 1:
        distributed.all_gather_object(values, value)
    return values
