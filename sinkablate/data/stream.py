"""The stream reader: whole shards from anywhere, read forwards with webdataset, shuffled within blocks of shards."""

import os
import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from webdataset.filters import shuffle

from sinkablate.data.layout import MANIFEST, DataError, beside, is_remote, labeled_image, parse_label, shard_name
from sinkablate.data.manifest import read_manifest
from sinkablate.data.samplers import Draw, kept_random_state
from sinkablate.data.samples import Encoded, ErrorPolicy, Preparation, Sample
from sinkablate.data.stream_split import LanePlan, Piece, Ticket
from sinkablate.data.tar import TarSample, stream_samples
from sinkablate.errors import UserError

_BUFFER = 1000
"""Encoded samples a shuffling lane holds."""


class ShardStream:
    """Shards that are read forwards, and how many samples each holds.

    Args:
        urls: Paths, URLs or pipe commands.
        key: The configuration key they come from, for messages.
        num_classes: Labels must lie below.

    Raises:
        UserError: No manifest lies beside the shards, it does not list one of them, or lists what cannot be.
    """

    def __init__(self, urls: Sequence[str], *, key: str, num_classes: int) -> None:
        self.urls, self.num_classes = list(urls), num_classes
        counts = read_manifest(self.urls[0]).counts
        if not counts:
            raise UserError(
                f"{key}: a stream needs the number of samples per shard, but no {MANIFEST} can be read at "
                f"{beside(self.urls[0], MANIFEST)}; `python -m sinkablate shards` writes it"
            )
        missing = [shard_name(url) for url in self.urls if shard_name(url) not in counts]
        if missing:
            raise UserError(f"{key}: {MANIFEST} beside the shards does not list {missing[0]}")
        self.counts = [counts[shard_name(url)] for url in self.urls]
        self.starts = np.cumsum([0, *self.counts]).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def first(self) -> Encoded:
        """Read one sample, and see that every shard that should be a file is there.

        Raises:
            DataError: A file is missing, or the sample cannot be read.
        """
        for url in self.urls:
            if not is_remote(url) and not os.path.exists(url):
                raise DataError(f"{url}: no such file")
        piece = Piece(next(shard for shard, count in enumerate(self.counts) if count), 0, 1)
        return self.encode(next(self.read(piece)), piece)

    def read(self, piece: Piece) -> Iterator[TarSample]:
        """Yield samples [low, high) of a shard, each for `encode`.

        Raises:
            DataError: The shard cannot be opened, is cut short or malformed, or disagrees with the manifest.
        """
        url, count = self.urls[piece.shard], self.counts[piece.shard]
        shard = shard_name(url)
        found = piece.low
        samples = stream_samples(url)
        for sample in islice(samples, piece.low, piece.high):
            found += 1
            if found == count and next(samples, None) is not None:
                raise DataError(f"{shard}: the shard holds more samples than {MANIFEST} says ({count})")
            yield sample
        if found < piece.high:
            raise DataError(f"{shard}: the shard holds fewer samples than {MANIFEST} says ({count})")

    def encode(self, sample: TarSample, piece: Piece) -> Encoded:
        """Pick image and label out of one sample.

        Raises:
            DataError: One is missing, or the label is not an integer or out of range.
        """
        shard = shard_name(self.urls[piece.shard])
        where = f"{shard}: {sample.key}"
        if sample.fault:
            raise sample.fault
        image, label = labeled_image(list(sample.parts), where)
        target = parse_label(sample.parts[label], self.num_classes, where)
        return Encoded(sample.parts[image], target, sample.key, shard)


class StreamImages(Dataset[Sample]):
    """Batches of prepared samples, addressed by `Ticket`.

    A ticket that follows the one before continues the open stream; any other one opens the lane anew, passes over whole
    blocks without reading them and reads on, undecoded, within the block. When unreadable samples are skipped, training
    takes readable ones of the same batch in their place, so batches keep their size; evaluation leaves them out.

    Args:
        shards: The source.
        plan: The split over ranks and lanes.
        prepare: What is done to each sample.
        faults: What an unreadable sample or shard does.
        block: Shards that are shuffled together in training.
    """

    def __init__(
        self, shards: ShardStream, plan: LanePlan, prepare: Preparation, faults: ErrorPolicy, *, block: int
    ) -> None:
        self.shards, self.plan, self.prepare, self.faults = shards, plan, prepare, faults
        self.shuffled = plan.seed is not None
        self.block = block if self.shuffled else 1
        self._next: Ticket | None = None
        self._stream: Iterator[tuple[int, Encoded | None]] = iter(())

    def __len__(self) -> int:
        return len(self.shards)

    def __getstate__(self) -> dict[str, Any]:
        # an open stream does not travel to a spawned worker
        return {**self.__dict__, "_next": None, "_stream": None}

    def __getitems__(self, tickets: list[Ticket]) -> list[Sample]:
        """The samples of one batch.

        Raises:
            DataError: A shard or sample cannot be read and is not to be skipped, or no sample of a training batch can.
        """
        (ticket,) = tickets
        if ticket != self._next:
            self._stream = self.lane(ticket.epoch, ticket.lane, ticket.batch * self.plan.batch_size)
        chunk = list(islice(self._stream, self.plan.batch_size))
        self._next = ticket._replace(batch=ticket.batch + 1)
        with kept_random_state():
            samples = [self._prepared(encoded, Draw(ticket.epoch, index)) for index, encoded in chunk]
        readable = [sample for sample in samples if sample is not None]
        if not self.shuffled or len(readable) == len(chunk):
            return readable
        if not readable:
            raise DataError(f"no sample of batch {ticket.batch} of epoch {ticket.epoch} can be read")
        return [sample or readable[place % len(readable)] for place, sample in enumerate(samples)]

    def _prepared(self, encoded: Encoded | None, draw: Draw) -> Sample | None:
        if encoded is None:
            return None
        try:
            return self.prepare(encoded, draw)
        except DataError as error:
            self.faults.report(error)
            return None

    def lane(self, epoch: int, lane: int, skip: int = 0) -> Iterator[tuple[int, Encoded | None]]:
        """Yield (number in the set, sample) of a lane from its `skip`-th on; None stands for an unreadable one."""
        pieces = list(self.plan.pieces(epoch, lane))
        for first in range(0, len(pieces), self.block):
            block = pieces[first : first + self.block]
            size = sum(piece.high - piece.low for piece in block)
            if skip < size:
                stream = self._shuffle(block, epoch) if self.shuffled else chain.from_iterable(map(self._read, block))
                yield from islice(stream, skip, None)
            skip = max(0, skip - size)

    def _read(self, piece: Piece) -> Iterator[tuple[int, Encoded | None]]:
        first = self.shards.starts[piece.shard]
        samples = self.shards.read(piece)
        for done in range(piece.low, piece.high):
            try:
                sample = next(samples)
            except DataError as error:
                self.faults.report(error, piece.high - done)
                yield from ((first + lost, None) for lost in range(done, piece.high))
                return
            yield first + done, self._encoded(sample, piece)

    def _encoded(self, sample: TarSample, piece: Piece) -> Encoded | None:
        try:
            return self.shards.encode(sample, piece)
        except DataError as error:
            self.faults.report(error)
            return None

    def _shuffle(self, block: list[Piece], epoch: int) -> Iterator[tuple[int, Encoded | None]]:
        """Draw from the open shards of a block in random turn, then through a buffer."""
        rng = np.random.default_rng((self.plan.seed or 0, epoch, *block[0]))
        turns = rng.permutation(np.repeat(np.arange(len(block)), [piece.high - piece.low for piece in block]))
        sources = [self._read(piece) for piece in block]
        mixed = (next(sources[turn]) for turn in turns.tolist())
        buffered: Iterator[tuple[int, Encoded | None]] = shuffle(
            _BUFFER, initial=_BUFFER, rng=random.Random(int(rng.integers(2**63)))
        )(mixed)
        return buffered
