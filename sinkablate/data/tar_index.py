"""The indexed reader: finds each sample in local tar shards once, and then reads samples in any order."""

import os
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import IO

import numpy as np

from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.file_names import check_label, labeled_image, parse_label
from sinkablate.data.locations import is_compressed, shard_name
from sinkablate.data.sample_index import Index, IndexCache
from sinkablate.data.samples import Encoded
from sinkablate.data.tar import grouped, members

_MAX_LABEL = 2**31 - 1
_MAX_OPEN_SHARDS = 64
Row = tuple[int, int, int, bytes]
"""(offset, size, label, key) of a sample."""


class TarRecords:
    """Samples of local tar shards in any order, with one `pread` each.

    The index is stored in a hidden file next to the shards if their directory is writable, otherwise in memory. A
    compressed shard (`.tar.gz`, `.tar.xz`) does not allow random access, so its images are kept in memory; only small
    sets should be compressed.

    Args:
        shards: Paths of the shards.
        num_classes: Number of classes; labels must be smaller.
        on_error: What happens at a shard that is missing, truncated or malformed, here before training.

    Raises:
        DataError: A shard cannot be read, and errors are not skipped; or a label is out of range.
    """

    def __init__(self, shards: Sequence[str], *, num_classes: int, on_error: ErrorPolicy) -> None:
        self.shards = list(shards)
        self._names = [shard_name(shard) for shard in self.shards]
        self._memory: dict[int, bytes] = {}
        cached = None if any(map(is_compressed, self.shards)) else IndexCache(self.shards)
        index = cached.load() if cached else None
        if index is None:
            index, complete = self._scan(on_error)
            if cached and complete:
                cached.save(index)
        self.index = index
        outside = np.flatnonzero((index.target < 0) | (index.target >= num_classes))
        if len(outside):
            first = int(outside[0])
            check_label(int(index.target[first]), num_classes, self.name(first))
        self._open = lru_cache(_MAX_OPEN_SHARDS)(_open_raw)

    def __reduce__(self) -> tuple[object, ...]:
        # open files cannot be pickled for a spawned worker, which opens its own
        return _restored, (self.shards, self._memory, self.index)

    def __len__(self) -> int:
        return len(self.index.shard)

    @property
    def labels(self) -> Sequence[int]:
        """The label of every sample."""
        labels: list[int] = self.index.target.tolist()
        return labels

    def digest(self) -> str:
        """Return a hash of the keys, labels, sizes and positions of all samples."""
        return self.index.digest()

    def __getitem__(self, index: int) -> Encoded:
        """Read one sample.

        Raises:
            DataError: The shard was removed or truncated after it was indexed.
        """
        shard, offset, size, target, key = (column[index] for column in self.index)
        path = self.shards[shard]
        if shard in self._memory:
            data = self._memory[shard][offset : offset + size]
        else:
            try:
                file = self._open(path)  # kept, because a file that another thread displaces is closed without it
                data = os.pread(file.fileno(), int(size), int(offset))
            except OSError as error:
                raise DataError(f"{self.name(index)}: {error.strerror}") from None
        if len(data) != size:
            raise DataError(
                f"{self.name(index)}: the shard is shorter than when it was indexed; restart to index it again"
            )
        return Encoded(data, int(target), key.decode(), self._names[shard])

    def name(self, index: int) -> str:
        """Name of a sample in messages: shard and key."""
        return f"{self._names[self.index.shard[index]]}: {self.index.key[index].decode()}"

    def _scan(self, on_error: ErrorPolicy) -> tuple[Index, bool]:
        rows: list[tuple[int, int, int, int, bytes]] = []
        complete = True
        for number, path in enumerate(self.shards):
            shard_rows: list[Row | DataError] = []
            try:
                if is_compressed(path):
                    self._memory[number], shard_rows = _scan_compressed(path)
                else:
                    with open(path, "rb") as file:
                        shard_rows = list(scan(file, path))
            except DataError as error:
                shard_rows = [error]
            except OSError as error:
                shard_rows = [DataError(f"{path}: the shard cannot be opened ({error.strerror})")]
            for row in shard_rows:
                if isinstance(row, DataError):
                    on_error.handle(row)
                    complete = False
                else:
                    rows.append((number, *row))
        return Index.from_rows(rows), complete


def _restored(shards: list[str], memory: dict[int, bytes], index: Index) -> TarRecords:
    records = TarRecords.__new__(TarRecords)
    records.shards, records._memory, records.index = shards, memory, index
    records._names = [shard_name(shard) for shard in shards]
    records._open = lru_cache(_MAX_OPEN_SHARDS)(_open_raw)
    return records


def _open_raw(path: str) -> IO[bytes]:
    return open(path, "rb", buffering=0)


def scan(file: IO[bytes], path: str) -> Iterator[Row | DataError]:
    """Read the headers of an uncompressed tar and yield a row of the index, or an error, for each sample.

    Raises:
        DataError: The tar is truncated or malformed.
    """
    shard = shard_name(path)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            named = ((member.name, member) for member in members(tar, shard))
            for key, parts, fault in grouped(named, shard):
                yield fault or _row(tar, key, parts, f"{shard}: {key}")
            # tarfile accepts a file that ends between two members; only the end marker shows that it is complete
            file.seek(tar.offset)
            if file.read(1) != b"\0":
                raise DataError(f"{shard}: the shard is truncated (no end marker at byte {tar.offset})")
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{shard}: the shard is truncated or not a tar file ({error})") from None


def _row(tar: tarfile.TarFile, key: str, parts: dict[str, tarfile.TarInfo], where: str) -> Row | DataError:
    try:
        image, label = (parts[suffix] for suffix in labeled_image(list(parts), where))
        file = tar.extractfile(label)
        target = parse_label(file.read() if file else b"", _MAX_LABEL, where)
    except DataError as error:
        return error
    return image.offset_data, image.size, target, key.encode()


def _scan_compressed(path: str) -> tuple[bytes, list[Row | DataError]]:
    """Decompress a shard; return the concatenated bytes of its images, and a row of the index for each."""
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
        raise DataError(f"{shard_name(path)}: the shard is truncated or not a {kind} file ({error})") from None
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
