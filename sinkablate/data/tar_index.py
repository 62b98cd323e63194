"""The indexed reader: where each sample lies in local tar shards, found once, then read at random."""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sinkablate.data.layout import DataError, check_label, is_compressed, labeled_image, parse_label, shard_name
from sinkablate.data.samples import Encoded, ErrorPolicy
from sinkablate.data.tar import grouped, members
from sinkablate.files.writing import replacing

_LARGEST_LABEL = 2**31 - 1
_OPEN_SHARDS = 64
_RULES = 2
"""Changes when other members of a tar make up samples: an index of other rules is made anew."""
Row = tuple[int, int, int, bytes]
"""(offset, size, label, key) of a sample."""


class Index(NamedTuple):
    """One row per sample, in the order of the shards. Plain arrays: forked workers share them without copies."""

    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    """Where the image's bytes start in the (decompressed) tar."""
    size: NDArray[np.int64]
    target: NDArray[np.int32]
    key: NDArray[np.bytes_]

    @classmethod
    def of(cls, rows: Sequence[tuple[int, int, int, int, bytes]]) -> "Index":
        """Build from rows of (shard, offset, size, target, key)."""
        shard, offset, size, target, key = zip(*rows, strict=True) if rows else ([],) * 5
        return cls(
            np.array(shard, np.int32),
            np.array(offset, np.int64),
            np.array(size, np.int64),
            np.array(target, np.int32),
            np.array(key, np.bytes_),
        )


class TarRecords:
    """Samples of local tar shards in any order, at one `pread` each.

    The index is kept in a hidden file beside the shards if their directory can be written, else in memory.
    A compressed shard (`.tar.gz`, `.tar.xz`) cannot be read at random: its images are kept in memory instead, so only
    small sets should be compressed.

    Args:
        shards: Paths.
        num_classes: Labels must lie below.
        faults: A shard that is missing, truncated or malformed is an error here, before training, or skipped.

    Raises:
        DataError: A shard is unreadable (and not to be skipped), or a label out of range.
    """

    def __init__(self, shards: Sequence[str], *, num_classes: int, faults: ErrorPolicy) -> None:
        self.shards = list(shards)
        self._names = [shard_name(shard) for shard in self.shards]
        self._memory: dict[int, bytes] = {}
        cached = None if any(map(is_compressed, self.shards)) else _Cache(self.shards)
        index = cached.load() if cached else None
        if index is None:
            index, complete = self._scan(faults)
            if cached and complete:
                cached.save(index)
        self.index = index
        outside = np.flatnonzero((index.target < 0) | (index.target >= num_classes))
        if len(outside):
            first = int(outside[0])
            check_label(int(index.target[first]), num_classes, self.name(first))
        self._open = lru_cache(_OPEN_SHARDS)(_open_raw)

    def __reduce__(self) -> tuple[object, ...]:
        # open files do not travel to a spawned worker; it opens its own
        return _restored, (self.shards, self._memory, self.index)

    def __len__(self) -> int:
        return len(self.index.shard)

    def __getitem__(self, index: int) -> Encoded:
        """Read one sample.

        Raises:
            DataError: The shard has gone or become shorter since it was indexed.
        """
        shard, offset, size, target, key = (column[index] for column in self.index)
        path = self.shards[shard]
        if shard in self._memory:
            data = self._memory[shard][offset : offset + size]
        else:
            try:
                data = os.pread(self._open(path).fileno(), int(size), int(offset))
            except OSError as error:
                raise DataError(f"{self.name(index)}: {error.strerror}") from None
        if len(data) != size:
            raise DataError(f"{self.name(index)}: the shard is shorter than when it was indexed")
        return Encoded(data, int(target), key.decode(), self._names[shard])

    def name(self, index: int) -> str:
        """Shard and key of a sample, for messages."""
        return f"{self._names[self.index.shard[index]]}: {self.index.key[index].decode()}"

    def _scan(self, faults: ErrorPolicy) -> tuple[Index, bool]:
        rows: list[tuple[int, int, int, int, bytes]] = []
        complete = True
        for number, path in enumerate(self.shards):
            found: list[Row | DataError] = []
            try:
                if is_compressed(path):
                    self._memory[number], found = _scan_compressed(path)
                else:
                    with open(path, "rb") as file:
                        found = list(scan(file, path))
            except DataError as error:
                found = [error]
            except OSError as error:
                found = [DataError(f"{path}: the shard cannot be opened ({error.strerror})")]
            for row in found:
                if isinstance(row, DataError):
                    faults.report(row)
                    complete = False
                else:
                    rows.append((number, *row))
        return Index.of(rows), complete


def _restored(shards: list[str], memory: dict[int, bytes], index: Index) -> TarRecords:
    records = TarRecords.__new__(TarRecords)
    records.shards, records._memory, records.index = shards, memory, index
    records._names = [shard_name(shard) for shard in shards]
    records._open = lru_cache(_OPEN_SHARDS)(_open_raw)
    return records


def _open_raw(path: str) -> IO[bytes]:
    return open(path, "rb", buffering=0)


def scan(file: IO[bytes], path: str) -> Iterator[Row | DataError]:
    """Walk an uncompressed tar's headers and yield a row of the index for each sample, or what is wrong with it.

    Raises:
        DataError: The tar is truncated or malformed.
    """
    shard = shard_name(path)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            named = ((member.name, member) for member in members(tar, shard))
            for key, parts, fault in grouped(named, shard):
                yield fault or _row(tar, key, parts, f"{shard}: {key}")
            # tarfile takes a file that ends between two members for a whole one; the end mark tells
            file.seek(tar.offset)
            if file.read(1) != b"\0":
                raise DataError(f"{shard}: the shard is truncated (no end mark at byte {tar.offset})")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{shard}: the shard is truncated or no tar file ({error})") from None


def _row(tar: tarfile.TarFile, key: str, parts: dict[str, tarfile.TarInfo], where: str) -> Row | DataError:
    try:
        image, label = (parts[suffix] for suffix in labeled_image(list(parts), where))
        file = tar.extractfile(label)
        target = parse_label(file.read() if file else b"", _LARGEST_LABEL, where)
    except DataError as error:
        return error
    return image.offset_data, image.size, target, key.encode()


def _scan_compressed(path: str) -> tuple[bytes, list[Row | DataError]]:
    """Decompress a shard and keep its images only: their bytes in a row, and a row of the index for each."""
    import bz2
    import gzip
    import io
    import lzma
    import zlib

    unpack = next(
        (unpack for ending, unpack in ((".bz2", bz2.open), (".xz", lzma.open)) if path.endswith(ending)), gzip.open
    )
    try:
        with unpack(path, "rb") as file:
            tar = file.read()
    except FileNotFoundError:
        raise
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        kind = path.rpartition(".")[2]
        raise DataError(f"{shard_name(path)}: the shard is truncated or no {kind} file ({error})") from None
    images: list[bytes] = []
    rows: list[Row | DataError] = []
    start = 0
    for row in scan(io.BytesIO(tar), path):
        if isinstance(row, DataError):
            rows.append(row)
            continue
        offset, size, target, key = row
        images.append(tar[offset : offset + size])
        rows.append((start, size, target, key))
        start += size
    return b"".join(images), rows


class _Cache:
    """The index of a set of shards as a hidden file beside the first; void when a shard's size or time changes."""

    def __init__(self, shards: Sequence[str]) -> None:
        names = hashlib.sha256("\0".join(os.path.abspath(shard) for shard in shards).encode()).hexdigest()[:16]
        self.path = Path(shards[0]).parent / f".sinkablate-index-{names}.npz"
        self.state = np.zeros((0, 2), np.int64)
        with suppress(OSError):  # a missing shard: the scan will say so
            stats = [os.stat(shard) for shard in shards]
            self.state = np.array([(s.st_size, s.st_mtime_ns) for s in stats] + [(_RULES, 0)], np.int64)

    def load(self) -> Index | None:
        try:
            with np.load(self.path) as stored:
                if np.array_equal(stored["state"], self.state):
                    return Index(*(stored[name] for name in Index._fields))
        except Exception:  # absent, or cut short in any of numpy's and zipfile's ways: index again
            return None
        return None

    def save(self, index: Index) -> None:
        # in a folder that cannot be written, the index stays in memory
        with suppress(OSError), replacing(self.path, concurrent=True) as partial, partial.open("wb") as file:
            np.savez(file, state=self.state, **index._asdict())
