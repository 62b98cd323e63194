"""Which sample comes when: functions of (seed, epoch, position, rank), never a state that could be lost.

Batch samplers run in the main process. What they yield carries all that a worker needs, so that workers may persist,
be forked or be spawned, and a resumed run continues at any batch at no cost.
"""

import hashlib
import random
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import Sampler

T = TypeVar("T")
Position = Callable[[], tuple[int, int]]
"""Gives (epoch, batch): where the next pass over a loader starts."""


class Draw(NamedTuple):
    """One draw of one sample: what its augmentation is seeded from."""

    epoch: int
    sample: int
    repeat: int = 0


def from_the_start() -> tuple[int, int]:
    """The position of every evaluation pass."""
    return 0, 0


class EpochBatches(Sampler[list[T]], ABC):
    """The batches of one epoch on one rank, from a position on.

    Args:
        length: Batches per epoch on each rank. `len()` stays this number when an epoch is entered in its middle,
            because Lightning counts the batches already done.
        position: Asked at each `iter()`. A batch equal to `length` is the start of the next epoch.
    """

    def __init__(self, length: int, position: Position = from_the_start) -> None:
        self.length = length
        self.position = position

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[list[T]]:
        epoch, start = self.position()
        if start >= self.length > 0:
            epoch, start = epoch + 1, 0
        return self.batches(epoch, start)

    @abstractmethod
    def batches(self, epoch: int, start: int) -> Iterator[list[T]]:
        """Yield the epoch's batches from number `start` on."""


class TrainBatches(EpochBatches[Draw]):
    """Global batches cut from a permutation of (seed, epoch); each rank takes every world-th sample of each.

    The last incomplete global batch is dropped, so every rank has the same number of batches, and their union is the
    same for any number of ranks. With repeated augmentation (DeiT; timm's `RepeatAugSampler`) each image of the
    permutation stands `repeats` times in a row, so neighboring ranks get the copies; the epoch keeps its length.

    Args:
        size: Samples in the set.
        batch_size: Samples of one global batch; a multiple of `world`.
        seed: The run's seed.
        rank: This process.
        world: Number of processes.
        repeats: Times each image appears.
        position: See `EpochBatches`.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        repeats: int = 1,
        position: Position = from_the_start,
    ) -> None:
        super().__init__(size // batch_size, position)
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world, self.repeats = rank, world, repeats

    def batches(self, epoch: int, start: int) -> Iterator[list[Draw]]:
        """Yield this rank's part of each global batch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        for batch in range(start, self.length):
            first = batch * self.batch_size
            places = range(first + self.rank, first + self.batch_size, self.world)
            yield [Draw(epoch, int(order[p // self.repeats]), p % self.repeats) for p in places]


class EvalBatches(EpochBatches[Draw]):
    """Every sample exactly once over all ranks: rank r takes r, r + world, …; nothing is padded, a rank may have none.

    Args:
        size: Samples in the set.
        batch_size: Samples of one batch on this rank; the last one may be smaller.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, size: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        self.indices = range(rank, size, world)
        self.batch_size = batch_size
        super().__init__(-(-len(self.indices) // batch_size))

    def batches(self, epoch: int, start: int) -> Iterator[list[Draw]]:
        """Yield this rank's samples in order."""
        for first in range(start * self.batch_size, len(self.indices), self.batch_size):
            yield [Draw(epoch, index) for index in self.indices[first : first + self.batch_size]]


def seed_everything_from(seed: int, draw: Draw) -> None:
    """Seed python, numpy and torch (CPU) from a draw: a well-mixed, platform-independent function of its numbers."""
    digest = hashlib.blake2b(struct.pack("<4q", seed, *draw), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1  # torch takes a signed 64-bit number
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    # not torch.manual_seed: that also visits every accelerator, and this runs once per image
    torch.default_generator.manual_seed(number)


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put the global random states of python, numpy and torch (CPU) back afterwards."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)
