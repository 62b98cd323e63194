"""Exchange Python objects between ranks."""

from collections.abc import Callable
from typing import TypeVar

from torch import distributed

from sinkablate.errors import UserError

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


def from_first_rank(make: Callable[[], T]) -> T:
    """Call a function on rank 0 and return its result on every rank; all ranks must call it.

    Raises:
        UserError: The function raised it on rank 0; it is raised on every rank.
    """
    rank, world = rank_and_world()
    if world == 1:
        return make()
    results: list[T | UserError | None] = [None]
    if rank == 0:
        try:
            results = [make()]
        except UserError as error:
            results = [error]
    distributed.broadcast_object_list(results, src=0)
    [result] = results
    if isinstance(result, UserError):
        raise result
    return result  # type: ignore[return-value]


def on_every_rank(make: Callable[[], T]) -> T:
    """Call a function on every rank, and return this rank's result; all ranks must call it.

    Raises:
        UserError: The function raised it on one of the ranks; it is raised on every rank.
    """
    results: list[T] = []
    message = None
    try:
        results.append(make())
    except UserError as error:
        message = str(error)
    first = next((text for text in gather(message) if text is not None), None)
    if first is not None:
        raise UserError(first)
    return results[0]
