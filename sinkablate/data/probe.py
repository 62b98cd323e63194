"""The images that diagnostics look at: the same ones in every run, read without touching any random state."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkablate.data.layout import DataError
from sinkablate.data.samplers import Draw
from sinkablate.data.samples import Encoded, ErrorPolicy, Preparation, Records, Sample
from sinkablate.data.stream import ShardStream
from sinkablate.data.stream_split import Piece

_SEED = 2606_08105
"""Not the run's seed: runs are compared on the same images."""


class ProbeSet(NamedTuple):
    """What diagnostics send through a model."""

    images: Tensor
    """(n, C, H, W) fp32; sequences of a toy task are (n, N, D)."""
    names: list[str]
    targets: Tensor | None = None
    """Class of each image, (n,) int64; None where there are no classes."""


def probe(source: Records | ShardStream, prepare: Preparation, faults: ErrorPolicy, count: int) -> ProbeSet:
    """Read the first `count` readable samples in a fixed order.

    Args:
        source: The set. Of a stream, whole shards are taken in a fixed order, so that few need to be read.
        prepare: Evaluation's preparation.
        faults: What an unreadable sample does.
        count: How many; fewer come if the set is smaller.

    Returns:
        Images, their keys and their classes.

    Raises:
        DataError: A sample cannot be read and is not to be skipped, or none can.
    """
    samples = list(islice(_prepared(source, prepare, faults), count))
    if not samples:
        raise DataError("no probe image can be read from the validation set")
    return ProbeSet(
        torch.stack([sample.image for sample in samples]),
        [sample.key for sample in samples],
        torch.tensor([sample.target for sample in samples]),
    )


def _prepared(source: Records | ShardStream, prepare: Preparation, faults: ErrorPolicy) -> Iterator[Sample]:
    encoded = _streamed(source, faults) if isinstance(source, ShardStream) else _indexed(source, faults)
    for sample in encoded:
        try:
            yield prepare(sample, Draw(0, 0))
        except DataError as error:
            faults.report(error)


def _indexed(records: Records, faults: ErrorPolicy) -> Iterator[Encoded]:
    for index in np.random.default_rng(_SEED).permutation(len(records)).tolist():
        try:
            yield records[index]
        except DataError as error:
            faults.report(error)


def _streamed(shards: ShardStream, faults: ErrorPolicy) -> Iterator[Encoded]:
    rng = np.random.default_rng(_SEED)
    for shard in rng.permutation(len(shards.urls)).tolist():
        piece = Piece(shard, 0, shards.counts[shard])
        try:
            samples = [shards.encode(sample, piece) for sample in shards.read(piece)]
        except DataError as error:
            faults.report(error)
        else:
            yield from (samples[place] for place in rng.permutation(len(samples)).tolist())
