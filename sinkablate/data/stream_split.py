"""How a stream is split: a pure function of the manifest's counts, (seed, epoch) and the readers.

Put the shards of an epoch in their order on a line. Each rank gets an equal interval of samples, cut into batches; the
rank's batches are cut into one run per lane (a DataLoader worker). So no sample has two readers, each rank has the same
number of training batches whatever the shards' sizes, and a shard is opened twice only where a cut goes through it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sinkablate.data.samplers import EpochBatches, Position, from_the_start


class Ticket(NamedTuple):
    """One batch of a stream: the lane's `batch`-th in an epoch."""

    epoch: int
    lane: int
    batch: int


class Piece(NamedTuple):
    """Samples [low, high) of a shard."""

    shard: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class LanePlan:
    """Which samples each lane of this rank reads.

    Args:
        counts: Samples per shard.
        batch_size: Samples of one batch on one rank.
        rank: This process.
        world: Number of processes.
        lanes: Readers of this process.
        seed: The order of shards is a permutation of (seed, epoch); None: as given (evaluation).
    """

    counts: Sequence[int]
    batch_size: int
    rank: int = 0
    world: int = 1
    lanes: int = 1
    seed: int | None = None

    @property
    def interval(self) -> tuple[int, int]:
        """This rank's [low, high) on the line: whole batches in training, an exact share in evaluation."""
        total = sum(self.counts)
        if self.seed is None:
            return total * self.rank // self.world, total * (self.rank + 1) // self.world
        share = total // (self.batch_size * self.world) * self.batch_size
        return share * self.rank, share * (self.rank + 1)

    @property
    def batches(self) -> int:
        """Batches of this rank per epoch."""
        low, high = self.interval
        return -(-(high - low) // self.batch_size)

    def pieces(self, epoch: int, lane: int) -> Iterator[Piece]:
        """Yield what a lane reads in an epoch, in the order of the line."""
        low, high = self.interval
        each, more = divmod(self.batches, self.lanes)
        first = lane * each + min(lane, more)
        last = first + each + (lane < more)
        low, high = low + first * self.batch_size, min(high, low + last * self.batch_size)
        shards = np.arange(len(self.counts))
        if self.seed is not None:
            shards = np.random.default_rng((self.seed, epoch)).permutation(shards)
        start = 0
        for shard in shards.tolist():
            end = start + self.counts[shard]
            if max(low, start) < min(high, end):
                yield Piece(shard, max(low, start) - start, min(high, end) - start)
            start = end


class StreamBatches(EpochBatches[Ticket]):
    """Tickets in the order in which torch hands them to workers: round robin.

    Batch b belongs to lane b % lanes. torch gives the first ticket of a pass to worker 0 and so on in turn, so that
    each worker serves one lane from wherever the pass starts.

    Args:
        plan: The split.
        position: See `EpochBatches`.
    """

    def __init__(self, plan: LanePlan, position: Position = from_the_start) -> None:
        super().__init__(plan.batches, position)
        self.lanes = plan.lanes

    def batches(self, epoch: int, start: int) -> Iterator[list[Ticket]]:
        """Yield one ticket per batch."""
        for batch in range(start, self.length):
            yield [Ticket(epoch, batch % self.lanes, batch // self.lanes)]
