"""The members of a tar shard that make up a sample: the rule of webdataset, shared by all readers."""

import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple, TypeVar

from sinkablate.data.errors import DataError
from sinkablate.data.file_names import IMAGE_SUFFIXES, LABEL_SUFFIX, is_sample, split_name
from sinkablate.data.locations import shard_name

T = TypeVar("T")


class TarSample(NamedTuple):
    """One sample of a shard, with its content."""

    key: str
    parts: dict[str, bytes]
    """Content by suffix; empty for members that are neither image nor label."""
    fault: DataError | None = None
    """The error, if the sample is stored incorrectly."""


def members(tar: tarfile.TarFile, shard: str) -> Iterator[tarfile.TarInfo]:
    """Yield the members that belong to samples; links, folders, devices and hidden files are ignored.

    Raises:
        DataError: A member is stored as a sparse file, whose bytes are not contiguous.
    """
    for member in tar:
        if member.isreg() and is_sample(member.name):
            if member.issparse():
                raise DataError(
                    f"{shard}: {member.name} is stored as a sparse file; create the shard without tar --sparse"
                )
            yield member
        tar.members = []  # type: ignore[attr-defined]  # otherwise tarfile keeps every header


def grouped(parts: Iterable[tuple[str, T]], shard: str) -> Iterator[tuple[str, dict[str, T], DataError | None]]:
    """Group consecutive members with the same key.

    Args:
        parts: (name, value) of each member; values of any type.
        shard: Names the shard in messages.

    Yields:
        Key, values by suffix, and an error if a key or a name occurs twice in the shard.
    """
    keys: set[str] = set()
    for key, group in groupby(parts, lambda part: split_name(part[0])[0]):
        values: dict[str, T] = {}
        fault = (
            DataError(
                f"{shard}: {key}: the key occurs twice in the shard, so its samples cannot be told apart",
                "key given twice",
            )
            if key in keys
            else None
        )
        keys.add(key)
        for name, value in group:
            suffix = split_name(name)[1]
            if suffix in values:
                fault = DataError(f"{shard}: {name}: the name occurs twice in the shard", "key given twice")
            values[suffix] = value
        yield key, values, fault


def stream_samples(url: str) -> Iterator[TarSample]:
    """Read a shard sequentially from a path, a URL or a pipe.

    Raises:
        DataError: The shard cannot be opened, or is truncated or malformed.
    """
    from webdataset.gopen import gopen

    shard = shard_name(url)

    def contents() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(fileobj=gopen(url), mode="r|*") as tar:
            for member in members(tar, shard):
                needed = split_name(member.name)[1].rpartition(".")[2] in (*IMAGE_SUFFIXES, LABEL_SUFFIX)
                file = tar.extractfile(member) if needed else None
                yield member.name, file.read() if file else b""
            # tarfile accepts a file that ends between two members; only the end marker shows that it is complete
            if tar.fileobj.pos < tar.offset + tarfile.BLOCKSIZE:  # type: ignore[attr-defined, union-attr]
                raise DataError(f"{shard}: the shard is truncated (no end marker at byte {tar.offset})")

    try:
        for key, parts, fault in grouped(contents(), shard):
            yield TarSample(key, parts, fault)
    except DataError:
        raise
    except Exception as error:  # tarfile, the opener and the command raise many types
        reason = next((part for part in error.args if isinstance(part, str)), error)
        raise DataError(f"{shard}: the shard cannot be read ({reason})") from None
