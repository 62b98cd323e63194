"""How a stream is split over ranks and DataLoader workers.

The split is a pure function of the number of samples per shard, (seed, epoch) and the number of readers. Imagine the
samples of an epoch on a line, shard after shard in the order of the epoch. Each rank gets an interval of equal length,
divided into batches; the batches of a rank are divided into one contiguous run per lane, where a lane is a DataLoader
worker. So no sample has two readers, each rank has the same number of training batches for any sizes of shards, and a
shard is opened twice only if a boundary lies within it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sinkablate.data.samplers import EpochBatches, Position, start_of_data


class BatchIndex(NamedTuple):
    """Address of one batch of a stream: batch number `batch` of a lane in an epoch."""

    epoch: int
    lane: int
    batch: int


class ShardSlice(NamedTuple):
    """Samples [start, stop) of a shard."""

    shard: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class LanePlan:
    """The samples that each lane of this rank reads.

    Args:
        counts: Number of samples in each shard.
        batch_size: Number of samples in a batch of one rank.
        rank: Rank of this process.
        world: Number of processes.
        lanes: Number of readers of this process.
        seed: The order of shards is a permutation of (seed, epoch); None keeps the given order (evaluation).
    """

    counts: Sequence[int]
    batch_size: int
    rank: int = 0
    world: int = 1
    lanes: int = 1
    seed: int | None = None

    @property
    def interval(self) -> tuple[int, int]:
        """This rank's interval [low, high): complete batches in training, an exact share in evaluation."""
        total = sum(self.counts)
        if self.seed is None:
            return total * self.rank // self.world, total * (self.rank + 1) // self.world
        share = total // (self.batch_size * self.world) * self.batch_size
        return share * self.rank, share * (self.rank + 1)

    @property
    def batches(self) -> int:
        """Number of batches of this rank per epoch."""
        low, high = self.interval
        return -(-(high - low) // self.batch_size)

    def pieces(self, epoch: int, lane: int) -> Iterator[ShardSlice]:
        """Yield the slices of shards that a lane reads in an epoch, in order."""
        low, high = self.interval
        per_lane, remainder = divmod(self.batches, self.lanes)
        first = lane * per_lane + min(lane, remainder)
        last = first + per_lane + (lane < remainder)
        low, high = low + first * self.batch_size, min(high, low + last * self.batch_size)
        shards = np.arange(len(self.counts))
        if self.seed is not None:
            shards = np.random.default_rng((self.seed, epoch)).permutation(shards)
        start = 0
        for shard in shards.tolist():
            end = start + self.counts[shard]
            if max(low, start) < min(high, end):
                yield ShardSlice(shard, max(low, start) - start, min(high, end) - start)
            start = end


class StreamBatches(EpochBatches[BatchIndex]):
    """Batch indices in the order in which torch hands them to workers: round robin.

    Batch b belongs to lane b % lanes. torch gives the first index of a pass to worker 0, the next one to worker 1, and
    so on, so each worker reads a single lane wherever the pass starts.

    Args:
        plan: The split over ranks and lanes.
        position: See `EpochBatches`.
    """

    def __init__(self, plan: LanePlan, position: Position = start_of_data) -> None:
        super().__init__(plan.batches, position)
        self.lanes = plan.lanes

    def batches(self, epoch: int, start: int) -> Iterator[list[BatchIndex]]:
        """Yield one index per batch."""
        for batch in range(start, self.length):
            yield [BatchIndex(epoch, batch % self.lanes, batch // self.lanes)]
