"""Features on disk: extracted once per backbone and set of images, in chunks, and read memory-mapped.

FOLDER/READING-KEY/features.json        what the features are of, their shape, and the number of rows of a chunk
FOLDER/READING-KEY/000000-000256.npy    a finished chunk: rows [0, 256) in half precision

The boundaries of the chunks depend on the size of a row only, and a batch never crosses them. So an extraction that
was interrupted resumes at the first missing chunk, and several ranks write different chunks, with the same bytes.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sinkablate.diagnose.measure import progress
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.distributed.gather import from_first_rank, on_every_rank, rank_and_world
from sinkablate.errors import UserError, first_line
from sinkablate.evaluate.backbones import Backbone
from sinkablate.evaluate.extraction import extract
from sinkablate.evaluate.features import MASKS, READINGS
from sinkablate.evaluate.images import PreparedImages
from sinkablate.files.writing import naming, write_atomically, write_json
from sinkablate.run.reading import read_json

CHUNK_BYTES, CHUNK_ROWS = 2**26, 256
"""Largest size of a chunk, whichever is reached first: 64 MiB, or the rows that a killed extraction may lose."""
MARKER = "features.json"
KEPT = "; finished features are kept, run the same command again to resume"
_OPEN_CHUNKS = 64


class CachedFeatures:
    """Features of a set of images, (n, *shape) in half precision or as bytes, memory-mapped.

    Args:
        folder: Folder of the chunks.
        count: Number n of rows.
        shape: Shape of a row.
        rows: Number of rows of a chunk.
    """

    def __init__(self, folder: Path, count: int, shape: Sequence[int], rows: int) -> None:
        self.folder, self.count, self.shape, self.rows = folder, count, tuple(shape), rows
        self._open = lru_cache(_OPEN_CHUNKS)(self._map)

    def __len__(self) -> int:
        return self.count

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First row, and row after the last, of every chunk."""
        return [(first, min(first + self.rows, self.count)) for first in range(0, self.count, self.rows)]

    def path(self, span: tuple[int, int]) -> Path:
        """Return the file of a chunk."""
        return self.folder / f"{span[0]:06d}-{span[1]:06d}.npy"

    def missing(self) -> list[tuple[int, int]]:
        """Return the chunks that are not finished."""
        present = {path.name for path in self.folder.glob("*.npy")}
        return [span for span in self.spans if self.path(span).name not in present]

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the first row, rows) of every chunk, in order; rows (m, *shape) on the CPU."""
        for span in self.spans:
            yield span[0], torch.from_numpy(np.array(self._open(span)))

    def all(self) -> Tensor:
        """Return all rows, (n, *shape), on the CPU."""
        return torch.cat([rows for _, rows in self.chunks()])

    def take(self, numbers: Tensor) -> Tensor:
        """Return some rows in the given order, (m, *shape), on the CPU; only these are read from the disk."""
        wanted = numbers.cpu().numpy()
        rows = np.empty((len(wanted), *self.shape), self._open(self.spans[0]).dtype)
        chunk = wanted // self.rows
        for index in np.unique(chunk):
            inside = np.flatnonzero(chunk == index)
            rows[inside] = self._open(self.spans[index])[wanted[inside] - index * self.rows]
        return torch.from_numpy(rows)

    def _map(self, span: tuple[int, int]) -> NDArray[Any]:
        path = self.path(span)
        try:
            chunk: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: damaged ({first_line(error)}); remove it and run the command again") from None
        if chunk.shape != (span[1] - span[0], *self.shape):
            raise UserError(f"{path}: damaged (shape {chunk.shape}); remove it and run the command again")
        return chunk


@dataclass(frozen=True)
class FeatureCache:
    """Cached features in a folder, which several evaluations may share."""

    folder: Path
    quiet: bool = False
    """Whether the progress of an extraction is left out."""

    def get(self, reading: str, backbone: Backbone, images: PreparedImages, batch_size: int) -> CachedFeatures:
        """Return features, after a forward pass over the images whose features are not cached yet.

        Args:
            reading: Name of a reading, a key of `READINGS`.
            backbone: The model.
            images: The images.
            batch_size: Images per forward pass.

        Raises:
            UserError: An image cannot be read, a feature is NaN or infinite, the batch does not fit into memory, or the
                cache cannot be written.
        """
        features = self._open(reading, backbone, images, self._prepare(reading, backbone, images))
        _extract_chunks(features, features.missing(), backbone, images, batch_size, reading, quiet=self.quiet)
        return features

    def extract(self, reading: str, backbone: Backbone, images: PreparedImages, batch_size: int) -> None:
        """Extract the features that `get` returns, chunk k on rank k modulo the number of ranks; all must call this.

        Raises:
            UserError: As `get`, on every rank.
        """
        stored = from_first_rank(lambda: self._prepare(reading, backbone, images))
        features, (rank, world) = self._open(reading, backbone, images, stored), rank_and_world()
        missing = set(features.missing())
        spans = [span for span in features.spans[rank::world] if span in missing]
        on_every_rank(lambda: _extract_chunks(features, spans, backbone, images, batch_size, reading, quiet=self.quiet))

    def _folder(self, identity: dict[str, Any]) -> Path:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{identity['reading']}-{digest}"

    def _open(self, reading: str, backbone: Backbone, images: PreparedImages, stored: dict[str, Any]) -> CachedFeatures:
        folder = self._folder(_identity(reading, backbone, images))
        return CachedFeatures(folder, len(images), stored["shape"], stored["rows"])

    def _prepare(self, reading: str, backbone: Backbone, images: PreparedImages) -> dict[str, Any]:
        """Return the content of the marker; the first time, one image is read to learn the shape of a row."""
        identity = _identity(reading, backbone, images)
        folder = self._folder(identity)
        stored = read_json(folder / MARKER)
        if stored is None:
            with measurement_mode(backbone.model):
                row = READINGS[reading](backbone.model, images.load(0)[None].to(backbone.device))[0]
            stored = {**identity, "shape": list(row.shape), "rows": chunk_rows(row.shape)}
            with naming(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / MARKER, stored, sort=False)
        return stored


def _identity(reading: str, backbone: Backbone, images: PreparedImages) -> dict[str, Any]:
    """Return everything that determines features, as plain values."""
    return {"reading": reading, "backbone": backbone.id, **images.identity, "count": len(images)}


def chunk_rows(shape: Sequence[int]) -> int:
    """Return the number of rows of a chunk: the largest power of two within `CHUNK_BYTES` and `CHUNK_ROWS`."""
    fitting = max(1, min(CHUNK_ROWS, CHUNK_BYTES // (2 * prod(shape))))
    return 1 << (fitting.bit_length() - 1)


def _extract_chunks(
    features: CachedFeatures,
    spans: list[tuple[int, int]],
    backbone: Backbone,
    images: PreparedImages,
    batch_size: int,
    reading: str,
    *,
    quiet: bool,
) -> None:
    """Extract and write some chunks."""
    if not spans:
        return
    label = "masks" if reading == MASKS else f"features of {backbone.name}"
    with measurement_mode(backbone.model), _progress(spans, label, quiet) as advance:
        for span, rows in extract(READINGS[reading], backbone, images, spans, batch_size):
            write_atomically(features.path(span), lambda path, rows=rows: _save(path, rows), KEPT)  # type: ignore[misc]
            advance(span[1] - span[0])


def _progress(spans: list[tuple[int, int]], label: str, quiet: bool) -> AbstractContextManager[Callable[[int], None]]:
    """Show how many images are finished, on the first rank: all ranks have about the same number."""
    rank, world = rank_and_world()
    if rank or quiet:
        return nullcontext(lambda _: None)
    total = sum(last - first for first, last in spans)
    return progress(0, total, label + (f", first of {world} ranks" if world > 1 else ""))


def _save(path: Path, rows: NDArray[Any]) -> None:
    with path.open("wb") as file:  # an open file, because numpy appends .npy to a name
        np.save(file, rows)
