"""The order of samples: functions of (seed, epoch, position, rank), without a state that could be lost.

Batch samplers run in the main process. They yield everything that a worker needs, so workers may persist, be forked or
be spawned, and a resumed run continues at any batch at no cost.
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
"""Returns (epoch, batch) at which the next pass over a loader starts."""


class Draw(NamedTuple):
    """One use of one sample; the seed of its augmentation is derived from these numbers."""

    epoch: int
    sample: int
    repeat: int = 0


def start_of_data() -> tuple[int, int]:
    """The position at which every evaluation pass starts."""
    return 0, 0


class EpochBatches(Sampler[list[T]], ABC):
    """The batches of one epoch on one rank, starting at a position.

    Args:
        length: Number of batches per epoch on each rank. `len()` returns it even if an epoch is entered in the middle,
            because Lightning counts the batches that are already done.
        position: Called at each `iter()`. A batch equal to `length` is the start of the next epoch.
    """

    def __init__(self, length: int, position: Position = start_of_data) -> None:
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
        """Yield the batches of an epoch, beginning with number `start`."""


class TrainBatches(EpochBatches[Draw]):
    """Training batches: a permutation of (seed, epoch) is cut into global batches, each interleaved over the ranks.

    Rank r gets samples r, r + world, … of each global batch. The last incomplete global batch is dropped, so every rank
    has the same number of batches, and their union is the same for any number of ranks. With repeated augmentation
    (DeiT; timm's `RepeatAugSampler`) each image of the permutation occurs `repeats` times in a row, so neighboring
    ranks get the copies; the length of an epoch does not change.

    Args:
        size: Number of samples in the set.
        batch_size: Number of samples in a global batch, a multiple of `world`.
        seed: The run's seed.
        rank: Rank of this process.
        world: Number of processes.
        repeats: Number of times each image occurs.
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
        position: Position = start_of_data,
    ) -> None:
        super().__init__(size // batch_size, position)
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.rank, self.world, self.repeats = rank, world, repeats

    def batches(self, epoch: int, start: int) -> Iterator[list[Draw]]:
        """Yield this rank's part of each global batch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        for batch in range(start, self.length):
            first = batch * self.batch_size
            own = range(first + self.rank, first + self.batch_size, self.world)
            yield [Draw(epoch, int(order[i // self.repeats]), i % self.repeats) for i in own]


class EvalBatches(EpochBatches[Draw]):
    """Evaluation batches: every sample exactly once over all ranks, without padding.

    Rank r gets samples r, r + world, …; a rank may have none.

    Args:
        size: Number of samples in the set.
        batch_size: Number of samples in a batch of this rank; the last one may be smaller.
        rank: Rank of this process.
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


def seed_from_draw(seed: int, draw: Draw) -> None:
    """Seed Python, NumPy and torch (CPU) with a hash of (seed, draw), which is the same on every platform."""
    digest = hashlib.blake2b(struct.pack("<4q", seed, *draw), digest_size=8).digest()
    number = int.from_bytes(digest, "little") >> 1  # torch takes a signed 64-bit number
    random.seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    # torch.manual_seed would also seed every accelerator, and this runs once per image
    torch.default_generator.manual_seed(number)


@contextmanager
def preserve_random_state() -> Iterator[None]:
    """Restore the global random states of Python, NumPy and torch (CPU) at the end of the block."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.default_generator.set_state(cpu)
