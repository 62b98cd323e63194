"""Measure a model on images batch by batch; each batch is stored as soon as it is finished."""

import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.data.errors import DataError
from sinkablate.diagnose.images import LazyImage
from sinkablate.diagnose.store import Store
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tap import Tap
from sinkablate.errors import UserError

_READERS = 4
"""Threads that decode the next batch while the model works on this one."""

Loaded = tuple[list[str], list[int], list[Tensor], list[DataError]]
"""Names, numbers and tensors of the images that could be read, and an error for each that could not."""


class Source(Protocol):
    """Numbered images."""

    skipped: Counter[str]
    """Number of files that are not images, by reason; they are not numbered."""

    def __len__(self) -> int: ...

    def start(self, first: int) -> Iterator[LazyImage]:
        """Yield the images from number `first` on."""


def measure_images(
    model: nn.Module,
    source: Source,
    store: Store,
    thresholds: ThresholdConfig,
    *,
    blocks: list[int],
    batch_size: int,
    memory_mib: int | None,
    limit: int | None,
    strict: bool,
    unit: str = "image",
) -> None:
    """Measure the images that the store does not hold yet.

    Args:
        model: The model, on its device and in fp32.
        source: The images.
        store: Receives each finished batch.
        thresholds: Thresholds of the quantities.
        blocks: Indices of the blocks to measure.
        batch_size: Images per forward pass.
        memory_mib: As for `Recorder`.
        limit: Number of images to measure, from the first; None measures all.
        strict: Stop at an image that cannot be read, instead of skipping it.
        unit: What the source holds: image or text.

    Raises:
        UserError: The model cannot be measured, an image cannot be read (`strict`), or memory or disk is full.
    """
    total = min(x for x in (limit, len(source) or None, sys.maxsize) if x is not None)
    recorder, begun = Recorder(thresholds, memory_mib), time.perf_counter()
    with (
        measurement_mode(model),
        Tap(model, recorder, blocks) as tap,
        progress(store.position, total, unit=unit) as advance,
    ):
        for start, end, (names, numbers, tensors, faults) in _batches(source, store.position, total, batch_size):
            if faults and strict:
                raise UserError(f"{faults[0]} (without --strict such images are skipped and counted)")
            for fault in faults:
                print(f"skipped: {fault}", file=sys.stderr)
            records = _run(tap, recorder, tensors, numbers) if tensors else None
            now = time.perf_counter()
            store.add(
                start,
                end,
                records,
                names=names,
                faults=faults,
                seconds=now - begun,
                rebuild_error=max(tap.rebuild_errors.values(), default=0.0),
            )
            begun = now
            advance(end - start)


def _batches(source: Source, first: int, total: int, size: int) -> Iterator[tuple[int, int, Loaded]]:
    """Yield (first number, one past the last, the batch); the next batch is decoded in the meantime."""
    images = enumerate(islice(source.start(first), max(0, total - first)), first)
    with ThreadPoolExecutor(_READERS) as pool:

        def begin() -> list[tuple[int, LazyImage, object]]:
            return [(number, image, pool.submit(_load, image)) for number, image in islice(images, size)]

        waiting = begin()
        while waiting:
            now, waiting = waiting, begin()
            read = [(number, image.name, future.result()) for number, image, future in now]  # type: ignore[attr-defined]
            good = [item for item in read if isinstance(item[2], Tensor)]
            yield (
                now[0][0],
                now[-1][0] + 1,
                (
                    [name for _, name, _ in good],
                    [number for number, _, _ in good],
                    [tensor for _, _, tensor in good],
                    [result for _, _, result in read if isinstance(result, DataError)],
                ),
            )


def _load(image: LazyImage) -> Tensor | DataError:
    """Return the tensor, or the error that the image raised."""
    try:
        return image.load()
    except DataError as error:
        return error


def _run(tap: Tap, recorder: Recorder, tensors: list[Tensor], numbers: list[int]) -> Records:
    """Return the records of a batch; if it does not fit into memory, find the size that fits and say so."""
    lengths = list(dict.fromkeys(tensor.shape for tensor in tensors))
    if len(lengths) > 1:  # texts: one length at a time
        of_length = [[index for index, tensor in enumerate(tensors) if tensor.shape == shape] for shape in lengths]
        parts = [[tensors[index] for index in group] for group in of_length]
        return Records.merge(
            [
                _run(tap, recorder, part, [numbers[index] for index in group])
                for part, group in zip(parts, of_length, strict=True)
            ]
        )
    images, fits = torch.stack(tensors), len(tensors)
    while fits:
        records = _attempt(tap, recorder, images[:fits], numbers[:fits])
        if records is not None:
            if fits == len(images):
                return records
            break
        fits //= 2
    advice = f"{fits} fit: --batch_size {fits} resumes from here" if fits else "a single image does not fit either"
    raise UserError(f"batch_size={len(images)} does not fit into memory; {advice}")


def _attempt(tap: Tap, recorder: Recorder, images: Tensor, numbers: list[int]) -> Records | None:
    """Return the records of a batch, or None if memory runs out."""
    recorder.reset()
    try:
        tap.run(images.to(next(tap.model.parameters()).device))
        return recorder.take(np.array(numbers, np.int64), images)
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out; on a CPU, torch raises a plain RuntimeError."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def progress(done: int, total: int, doing: str = "measuring", unit: str = "image") -> Iterator:  # type: ignore[type-arg]
    """Show progress on stderr, as a bar on a terminal and as a line every ten seconds elsewhere.

    Yields:
        A function that is called with the number of images that were finished.
    """
    known = total if total < sys.maxsize else None
    begun, state = time.monotonic(), {"done": done, "said": 0.0}
    console = Console(stderr=True)

    def speed() -> str:
        return f"{(state['done'] - done) / max(time.monotonic() - begun, 1e-9):.1f} {unit}s/s"

    if console.is_terminal:
        columns = (
            TextColumn(doing),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=known, completed=done, speed="")

            def advance(count: int) -> None:
                state["done"] += count
                bar.update(task, advance=count, speed=speed())

            yield advance
        return

    def tell(count: int) -> None:
        state["done"] += count
        now = time.monotonic()
        if now - state["said"] > 10:
            state["said"] = now
            rate = (state["done"] - done) / (now - begun)
            left = f", {(known - state['done']) / rate:.0f} s left" if known else ""
            print(
                f"{doing}: {state['done']:.0f} of {known or '?'} {unit}s, {speed()}{left}", file=sys.stderr, flush=True
            )

    yield tell
