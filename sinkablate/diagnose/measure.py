"""Sending pictures through a model under the tap, batch by batch, each kept as soon as it is finished."""

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
from sinkablate.diagnose.images import Picture
from sinkablate.diagnose.store import Store
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.records import Recorder, Records
from sinkablate.diagnostics.tap import Tap
from sinkablate.errors import UserError

_READERS = 4
"""Threads that decode the next batch while the model works on this one."""

Loaded = tuple[list[str], list[int], list[Tensor], list[DataError]]
"""Names, numbers and tensors of what could be read, and what is wrong with each picture that could not."""


class Source(Protocol):
    """Numbered pictures."""

    skipped: Counter[str]
    """Files that are not images, by reason; they have no number."""

    def __len__(self) -> int: ...

    def start(self, first: int) -> Iterator[Picture]:
        """Yield the pictures from number `first` on."""


def measure_pictures(
    model: nn.Module,
    source: Source,
    store: Store,
    thresholds: ThresholdConfig,
    *,
    blocks: list[int],
    batch_size: int,
    limit: int | None,
    strict: bool,
) -> None:
    """Measure what the store does not hold yet.

    Args:
        model: On its device, in fp32.
        source: The pictures.
        store: Receives each finished batch.
        thresholds: Of the quantities.
        blocks: Numbers of the blocks to measure.
        batch_size: ImageSource per forward pass.
        limit: Measure the first so many pictures; None is all.
        strict: A picture that cannot be read stops the run instead of being skipped.

    Raises:
        UserError: The model cannot be measured, a picture cannot be read (strict), memory or disk is full.
    """
    total = min(x for x in (limit, len(source) or None, sys.maxsize) if x is not None)
    recorder, begun = Recorder(thresholds), time.perf_counter()
    with measurement_mode(model), Tap(model, recorder, blocks) as tap, progress(store.position, total) as advance:
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
    """Yield (first number, one past the last, what was read); the next batch is decoded meanwhile."""
    pictures = enumerate(islice(source.start(first), max(0, total - first)), first)
    with ThreadPoolExecutor(_READERS) as pool:

        def begin() -> list[tuple[int, Picture, object]]:
            return [(number, picture, pool.submit(_load, picture)) for number, picture in islice(pictures, size)]

        waiting = begin()
        while waiting:
            now, waiting = waiting, begin()
            read = [(number, picture.name, future.result()) for number, picture, future in now]  # type: ignore[attr-defined]
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


def _load(picture: Picture) -> Tensor | DataError:
    """The tensor, or what is wrong with the picture."""
    try:
        return picture.load()
    except DataError as error:
        return error


def _run(tap: Tap, recorder: Recorder, tensors: list[Tensor], numbers: list[int]) -> Records:
    """The records of a batch; where it does not fit into memory, smaller ones are tried to say what would."""
    images, fits = torch.stack(tensors), len(tensors)
    while fits:
        records = _attempt(tap, recorder, images[:fits], numbers[:fits])
        if records is not None:
            if fits == len(images):
                return records
            break
        fits //= 2
    advice = f"{fits} fit: --batch_size {fits} goes on from here" if fits else "not even one does"
    raise UserError(f"batch_size={len(images)} does not fit into memory; {advice}")


def _attempt(tap: Tap, recorder: Recorder, images: Tensor, numbers: list[int]) -> Records | None:
    """The records of a batch, or None when memory runs out."""
    recorder.reset()
    try:
        tap.run(images.to(next(tap.model.parameters()).device))
        return recorder.take(np.array(numbers, np.int64))
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return None


def _is_out_of_memory(error: BaseException) -> bool:
    """torch raises a plain RuntimeError on a CPU."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def progress(done: int, total: int, doing: str = "measuring") -> Iterator:  # type: ignore[type-arg]
    """A bar with images/s and time left on a terminal, a line now and then elsewhere; both on stderr."""
    known = total if total < sys.maxsize else None
    begun, state = time.monotonic(), {"done": done, "said": 0.0}
    console = Console(stderr=True)

    def speed() -> str:
        return f"{(state['done'] - done) / max(time.monotonic() - begun, 1e-9):.1f} images/s"

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
                f"{doing}: {state['done']:.0f} of {known or '?'} images, {speed()}{left}", file=sys.stderr, flush=True
            )

    yield tell
