"""The stream reader: shards from anywhere, read sequentially with webdataset and shuffled within blocks of shards."""

import os
import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from webdataset.filters import shuffle

from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.file_names import labeled_image, parse_label
from sinkablate.data.locations import MANIFEST, is_remote, shard_name, sibling
from sinkablate.data.manifest import read_manifest
from sinkablate.data.samplers import Draw, preserve_random_state
from sinkablate.data.samples import Encoded, Preparation, Sample
from sinkablate.data.stream_split import BatchIndex, LanePlan, ShardSlice
from sinkablate.data.tar import TarSample, stream_samples
from sinkablate.errors import UserError

_BUFFER = 1000
"""Number of encoded samples in the shuffle buffer of a lane."""


class ShardStream:
    """Shards that are read sequentially, and the number of samples in each.

    Args:
        urls: Paths, URLs or pipe commands.
        key: The configuration key of the shards, for messages.
        num_classes: Number of classes; labels must be smaller.

    Raises:
        UserError: There is no manifest next to the shards, it does not list one of them, or it is damaged.
    """

    def __init__(self, urls: Sequence[str], *, key: str, num_classes: int) -> None:
        self.urls, self.num_classes = list(urls), num_classes
        counts = read_manifest(self.urls[0]).counts
        if not counts:
            raise UserError(
                f"{key}: a stream needs the number of samples per shard, but {sibling(self.urls[0], MANIFEST)} cannot "
                "be read; `python -m sinkablate shards` writes it"
            )
        missing = [shard_name(url) for url in self.urls if shard_name(url) not in counts]
        if missing:
            raise UserError(f"{key}: {MANIFEST} next to the shards does not list {missing[0]}")
        self.counts = [counts[shard_name(url)] for url in self.urls]
        self.starts = np.cumsum([0, *self.counts]).tolist()

    def __len__(self) -> int:
        return int(self.starts[-1])

    def first(self) -> Encoded:
        """Read one sample, and check that every local shard exists.

        Raises:
            DataError: A file does not exist, or the sample cannot be read.
        """
        for url in self.urls:
            if not is_remote(url) and not os.path.exists(url):
                raise DataError(f"{url}: no such file")
        piece = ShardSlice(next(shard for shard, count in enumerate(self.counts) if count), 0, 1)
        return self.encode(next(self.read(piece)), piece)

    def read(self, piece: ShardSlice) -> Iterator[TarSample]:
        """Yield the samples of a slice of a shard, to be passed to `encode`.

        Raises:
            DataError: The shard cannot be opened, is truncated or malformed, or contradicts the manifest.
        """
        url, count = self.urls[piece.shard], self.counts[piece.shard]
        shard = shard_name(url)
        position = piece.start
        samples = stream_samples(url)
        for sample in islice(samples, piece.start, piece.stop):
            position += 1
            if position == count and next(samples, None) is not None:
                raise DataError(f"{shard}: the shard contains more samples than {MANIFEST} lists ({count})")
            yield sample
        if position < piece.stop:
            raise DataError(f"{shard}: the shard contains fewer samples than {MANIFEST} lists ({count})")

    def encode(self, sample: TarSample, piece: ShardSlice) -> Encoded:
        """Extract the image and the label of a sample.

        Raises:
            DataError: One of them is missing, or the label is invalid.
        """
        shard = shard_name(self.urls[piece.shard])
        where = f"{shard}: {sample.key}"
        if sample.fault:
            raise sample.fault
        image, label = labeled_image(list(sample.parts), where)
        target = parse_label(sample.parts[label], self.num_classes, where)
        return Encoded(sample.parts[image], target, sample.key, shard)


class StreamImages(Dataset[Sample]):
    """Batches of prepared samples, indexed by `BatchIndex`.

    An index that follows the previous one continues the open stream. Any other index reopens the lane, passes over
    complete blocks without reading them, and reads up to the batch within its block without decoding. When unreadable
    samples are skipped, training replaces them with readable ones of the same batch, so that batches keep their size;
    evaluation leaves them out.

    Args:
        shards: The shards to read.
        plan: The split over ranks and lanes.
        prepare: Turns an encoded sample into a tensor.
        on_error: What happens at an unreadable sample or shard.
        block: Number of shards that are shuffled together in training.
    """

    def __init__(
        self, shards: ShardStream, plan: LanePlan, prepare: Preparation, on_error: ErrorPolicy, *, block: int
    ) -> None:
        self.shards, self.plan, self.prepare, self.on_error = shards, plan, prepare, on_error
        self.shuffled = plan.seed is not None
        self.block = block if self.shuffled else 1
        self._next: BatchIndex | None = None
        self._stream: Iterator[tuple[int, Encoded | None]] = iter(())

    def __len__(self) -> int:
        return len(self.shards)

    def __getstate__(self) -> dict[str, Any]:
        # an open stream cannot be pickled for a spawned worker
        return {**self.__dict__, "_next": None, "_stream": None}

    def __getitems__(self, indices: list[BatchIndex]) -> list[Sample]:
        """Read the samples of one batch.

        Raises:
            DataError: A shard or sample cannot be read, and errors are not skipped; or no sample of a training batch
                can be read.
        """
        (index,) = indices
        if index != self._next:
            self._stream = self.lane(index.epoch, index.lane, index.batch * self.plan.batch_size)
        chunk = list(islice(self._stream, self.plan.batch_size))
        self._next = index._replace(batch=index.batch + 1)
        with preserve_random_state():
            samples = [self._prepared(encoded, Draw(index.epoch, number)) for number, encoded in chunk]
        readable = [sample for sample in samples if sample is not None]
        if not self.shuffled or len(readable) == len(chunk):
            return readable
        if not readable:
            raise DataError(f"no sample of batch {index.batch} of epoch {index.epoch} can be read")
        return [sample or readable[i % len(readable)] for i, sample in enumerate(samples)]

    def _prepared(self, encoded: Encoded | None, draw: Draw) -> Sample | None:
        if encoded is None:
            return None
        try:
            return self.prepare(encoded, draw)
        except DataError as error:
            self.on_error.handle(error)
            return None

    def lane(self, epoch: int, lane: int, skip: int = 0) -> Iterator[tuple[int, Encoded | None]]:
        """Yield (number in the set, sample) of a lane after the first `skip` samples; an unreadable sample is None."""
        pieces = list(self.plan.pieces(epoch, lane))
        for first in range(0, len(pieces), self.block):
            block = pieces[first : first + self.block]
            size = sum(piece.size for piece in block)
            if skip < size:
                stream = self._shuffle(block, epoch) if self.shuffled else chain.from_iterable(map(self._read, block))
                yield from islice(stream, skip, None)
            skip = max(0, skip - size)

    def _read(self, piece: ShardSlice) -> Iterator[tuple[int, Encoded | None]]:
        first = self.shards.starts[piece.shard]
        samples = self.shards.read(piece)
        for number in range(piece.start, piece.stop):
            try:
                sample = next(samples)
            except DataError as error:
                self.on_error.handle(error, piece.stop - number)
                yield from ((first + lost, None) for lost in range(number, piece.stop))
                return
            yield first + number, self._encoded(sample, piece)

    def _encoded(self, sample: TarSample, piece: ShardSlice) -> Encoded | None:
        try:
            return self.shards.encode(sample, piece)
        except DataError as error:
            self.on_error.handle(error)
            return None

    def _shuffle(self, block: list[ShardSlice], epoch: int) -> Iterator[tuple[int, Encoded | None]]:
        """Read the shards of a block in random alternation, then shuffle in a buffer."""
        rng = np.random.default_rng((self.plan.seed or 0, epoch, *block[0]))
        turns = rng.permutation(np.repeat(np.arange(len(block)), [piece.size for piece in block]))
        sources = [self._read(piece) for piece in block]
        mixed = (next(sources[turn]) for turn in turns.tolist())
        buffered: Iterator[tuple[int, Encoded | None]] = shuffle(
            _BUFFER, initial=_BUFFER, rng=random.Random(int(rng.integers(2**63)))
        )(mixed)
        return buffered
