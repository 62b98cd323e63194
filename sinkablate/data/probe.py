"""The images that diagnostics measure: the same ones in every run, read without changing any random state."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.samplers import Draw
from sinkablate.data.samples import Encoded, Preparation, Records, Sample
from sinkablate.data.stream import ShardStream
from sinkablate.data.stream_split import ShardSlice

_SEED = 2606_08105
"""Independent of the run's seed, so that runs are compared on the same images."""


class ProbeSet(NamedTuple):
    """Inputs on which diagnostics measure a model."""

    images: Tensor
    """(n, C, H, W) fp32; sequences of a toy task are (n, N, D)."""
    names: list[str]
    targets: Tensor | None = None
    """Class of each image, (n,) int64; None if there are no classes."""


def read_probe_set(source: Records | ShardStream, prepare: Preparation, on_error: ErrorPolicy, count: int) -> ProbeSet:
    """Read the first `count` readable samples in a fixed order.

    Args:
        source: The set. Whole shards of a stream are read, in a fixed order, so that only a few have to be opened.
        prepare: The preparation for evaluation.
        on_error: What happens at an unreadable sample.
        count: Number of samples; all samples if the set is smaller.

    Returns:
        Images, their keys and their classes.

    Raises:
        DataError: A sample cannot be read, and errors are not skipped; or no sample can be read.
    """
    samples = list(islice(_prepared(source, prepare, on_error), count))
    if not samples:
        raise DataError("no probe image of the validation set can be read")
    return ProbeSet(
        torch.stack([sample.image for sample in samples]),
        [sample.key for sample in samples],
        torch.tensor([sample.target for sample in samples]),
    )


def _prepared(source: Records | ShardStream, prepare: Preparation, on_error: ErrorPolicy) -> Iterator[Sample]:
    encoded = _streamed(source, on_error) if isinstance(source, ShardStream) else _indexed(source, on_error)
    for sample in encoded:
        try:
            yield prepare(sample, Draw(0, 0))
        except DataError as error:
            on_error.handle(error)


def _indexed(records: Records, on_error: ErrorPolicy) -> Iterator[Encoded]:
    for index in np.random.default_rng(_SEED).permutation(len(records)).tolist():
        try:
            yield records[index]
        except DataError as error:
            on_error.handle(error)


def _streamed(shards: ShardStream, on_error: ErrorPolicy) -> Iterator[Encoded]:
    rng = np.random.default_rng(_SEED)
    for shard in rng.permutation(len(shards.urls)).tolist():
        piece = ShardSlice(shard, 0, shards.counts[shard])
        try:
            samples = [shards.encode(sample, piece) for sample in shards.read(piece)]
        except DataError as error:
            on_error.handle(error)
        else:
            yield from (samples[index] for index in rng.permutation(len(samples)).tolist())
