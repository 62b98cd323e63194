"""Where each sample of a set of tar shards is, and the file that stores this for later runs."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinkablate.files.writing import replacing

_RULES_VERSION = 2
"""Incremented when the rules for forming samples change; a stored index with another version is rebuilt."""


class Index(NamedTuple):
    """One row per sample, in the order of the shards; plain arrays, which forked workers share without copies."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    """Byte at which the image starts in the (decompressed) tar."""
    size: NDArray[np.int64]
    target: NDArray[np.int32]
    key: NDArray[np.bytes_]

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[int, int, int, int, bytes]]) -> "Index":
        """Build from rows of (shard, offset, size, target, key)."""
        shard, offset, size, target, key = zip(*rows, strict=True) if rows else ([],) * 5
        return cls(
            np.array(shard, np.int32),
            np.array(offset, np.int64),
            np.array(size, np.int64),
            np.array(target, np.int32),
            np.array(key, np.bytes_),
        )

    def digest(self) -> str:
        """Return a hash of all columns."""
        content = hashlib.sha256()
        for column in self:
            content.update(np.ascontiguousarray(column).tobytes())
        return content.hexdigest()


class IndexCache:
    """The index of a set of shards, a hidden file next to the first; invalid when a shard's size or time changes."""

    def __init__(self, shards: Sequence[str]) -> None:
        names = hashlib.sha256("\0".join(os.path.abspath(shard) for shard in shards).encode()).hexdigest()[:16]
        self.path = Path(shards[0]).parent / f".sinkablate-index-{names}.npz"
        self.state = np.zeros((0, 2), np.int64)
        with suppress(OSError):  # a shard does not exist; the scan reports it
            stats = [os.stat(shard) for shard in shards]
            self.state = np.array(
                [(stat.st_size, stat.st_mtime_ns) for stat in stats] + [(_RULES_VERSION, 0)], np.int64
            )

    def load(self) -> Index | None:
        """Return the stored index; None if there is none, or if it is out of date."""
        try:
            with np.load(self.path) as stored:
                if np.array_equal(stored["state"], self.state):
                    return Index(*(stored[name] for name in Index._fields))
        except Exception:  # missing or truncated (NumPy and zipfile raise many types): build the index again
            return None
        return None

    def save(self, index: Index) -> None:
        """Store an index."""
        # if the directory is not writable, the index stays in memory
        with suppress(OSError), replacing(self.path, concurrent=True) as partial, partial.open("wb") as file:
            np.savez(file, state=self.state, **index._asdict())
