"""Forward passes over a set of images, while threads decode the next ones."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkablate.errors import UserError
from sinkablate.evaluate.backbones import Backbone
from sinkablate.evaluate.features import Reading
from sinkablate.evaluate.images import PreparedImages
from sinkablate.process.cpus import usable_cpus
from sinkablate.process.memory import is_out_of_memory

Span = tuple[int, int]
_AHEAD = 2
"""Batches that are decoded ahead of the model."""
_PER_TASK = 8
"""Images that a thread decodes at a time, so that starting it costs little."""


def extract(
    reading: Reading, backbone: Backbone, images: PreparedImages, spans: Sequence[Span], batch_size: int
) -> Iterator[tuple[Span, NDArray[Any]]]:
    """Yield the features of spans of images, (m, ...) in half precision or as bytes, one span after the other.

    Args:
        reading: What is read from a forward pass.
        backbone: The model, in measurement mode.
        images: The images.
        spans: (first, one past the last) numbers of images; a batch never crosses them.
        batch_size: Images per forward pass.

    Raises:
        UserError: An image cannot be read, a feature is NaN or infinite, or the batch does not fit into memory.
    """
    parts: list[NDArray[Any]] = []
    ends = {last: (first, last) for first, last in spans}
    for (_, last), rows in _launched(reading, backbone, images, spans, batch_size):
        parts.append(rows)
        if last in ends:
            yield ends[last], np.concatenate(parts)
            parts = []


def _launched(
    reading: Reading, backbone: Backbone, images: PreparedImages, spans: Sequence[Span], batch_size: int
) -> Iterator[tuple[Span, NDArray[Any]]]:
    """Yield the features of each batch; on a GPU the next batch is launched before the previous one is waited for."""
    pending: tuple[Span, _Output] | None = None
    for span, batch in _decoded(images, _batches(spans, batch_size)):
        output = _forward(reading, backbone, batch)
        if pending is not None:
            yield pending[0], _finished(*pending, images)
        pending = span, output
    if pending is not None:
        yield pending[0], _finished(*pending, images)


class _Output:
    """Features on their way to the CPU."""

    def __init__(self, rows: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self.rows = rows
        if rows.device.type == "cuda":
            self.rows = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True).copy_(rows, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def wait(self) -> Tensor:
        """Return the features on the CPU."""
        if self._event is not None:
            self._event.synchronize()
        return self.rows


def _forward(reading: Reading, backbone: Backbone, batch: Tensor) -> _Output:
    try:
        on_device = batch.pin_memory() if backbone.device.type == "cuda" else batch
        rows = reading(backbone.model, on_device.to(backbone.device, non_blocking=True))
        return _Output(rows if rows.dtype == torch.uint8 else rows.half())
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise UserError(f"batch_size={len(batch)} does not fit into memory; use a smaller --batch_size") from None


def _finished(span: Span, output: _Output, images: PreparedImages) -> NDArray[Any]:
    """Return the features of a batch, after a check that all are finite.

    Raises:
        UserError: A feature is not; the message names the first image.
    """
    rows = output.wait()
    finite = rows.isfinite().flatten(1).all(1)
    if not finite.all():
        number = span[0] + int((~finite).nonzero()[0])
        raise UserError(
            f"{images.name(number)}: its features are NaN, or too large for half precision: the model has diverged, or "
            "the image holds no valid pixels"
        )
    array: NDArray[Any] = rows.numpy()
    return array


def batches_of(images: PreparedImages, batch_size: int) -> Iterator[tuple[Span, Tensor]]:
    """Yield the numbers of the images of each batch, as (first, one past the last), and the images (B, C, H, W)."""
    return _decoded(images, _batches([(0, len(images))], batch_size))


def _batches(spans: Sequence[Span], batch_size: int) -> list[Span]:
    return [(start, min(start + batch_size, last)) for first, last in spans for start in range(first, last, batch_size)]


def _decoded(images: PreparedImages, batches: Sequence[Span]) -> Iterator[tuple[Span, Tensor]]:
    """Yield batches of images (B, C, H, W) in order; the next ones are decoded in the meantime."""
    with ThreadPoolExecutor(max(4, usable_cpus())) as pool:

        def begin(span: Span) -> list[Future[list[Tensor]]]:
            starts = range(*span, _PER_TASK)
            return [pool.submit(_load, images, range(start, min(start + _PER_TASK, span[1]))) for start in starts]

        waiting = [begin(span) for span in batches[:_AHEAD]]
        try:
            for index, span in enumerate(batches):
                futures = waiting.pop(0)
                if index + _AHEAD < len(batches):
                    waiting.append(begin(batches[index + _AHEAD]))
                yield span, torch.stack([image for future in futures for image in future.result()])
        finally:
            for future in chain.from_iterable(waiting):
                future.cancel()


def _load(images: PreparedImages, numbers: range) -> list[Tensor]:
    return [images.load(number) for number in numbers]
