"""Which members of a tar shard make up a sample: webdataset's rule, the same for every reader."""

import tarfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import NamedTuple, TypeVar

from sinkablate.data.layout import IMAGE_SUFFIXES, LABEL_SUFFIX, DataError, is_sample, shard_name, split_name

T = TypeVar("T")


class TarSample(NamedTuple):
    """One sample of a shard, read."""

    key: str
    parts: dict[str, bytes]
    """Content by suffix; empty where it is neither an image nor a label."""
    fault: DataError | None = None
    """What is wrong with the way in which the sample is stored."""


def members(tar: tarfile.TarFile, shard: str) -> Iterator[tarfile.TarInfo]:
    """Yield what belongs to samples; links, folders, devices and hidden files are passed over.

    Raises:
        DataError: A member is stored as a sparse file, whose bytes do not lie in one piece.
    """
    for member in tar:
        if member.isreg() and is_sample(member.name):
            if member.issparse():
                raise DataError(
                    f"{shard}: {member.name} is stored as a sparse file; write the shard again without tar --sparse"
                )
            yield member
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep every header


def grouped(parts: Iterable[tuple[str, T]], shard: str) -> Iterator[tuple[str, dict[str, T], DataError | None]]:
    """Join members that follow each other and have the same key.

    Args:
        parts: (name, anything) of each member.
        shard: For messages.

    Yields:
        Key, what came with each name by suffix, and what is wrong: a key or a name that appears in the shard twice.
    """
    seen: set[str] = set()
    for key, group in groupby(parts, lambda part: split_name(part[0])[0]):
        found: dict[str, T] = {}
        fault = (
            DataError(
                f"{shard}: {key}: the key appears in the shard twice, so that the samples could be mixed up",
                "key given twice",
            )
            if key in seen
            else None
        )
        seen.add(key)
        for name, value in group:
            suffix = split_name(name)[1]
            if suffix in found:
                fault = DataError(f"{shard}: {name}: the name appears in the shard twice", "key given twice")
            found[suffix] = value
        yield key, found, fault


def stream_samples(url: str) -> Iterator[TarSample]:
    """Read a shard forwards, from a path, a URL or a pipe.

    Raises:
        DataError: The shard cannot be opened, or is cut short or malformed.
    """
    from webdataset.gopen import gopen

    shard = shard_name(url)

    def contents() -> Iterator[tuple[str, bytes]]:
        with tarfile.open(fileobj=gopen(url), mode="r|*") as tar:
            for member in members(tar, shard):
                wanted = split_name(member.name)[1].rpartition(".")[2] in (*IMAGE_SUFFIXES, LABEL_SUFFIX)
                file = tar.extractfile(member) if wanted else None
                yield member.name, file.read() if file else b""
            # tarfile takes a file that ends between two members for a whole one; the end mark tells
            if tar.fileobj.pos < tar.offset + tarfile.BLOCKSIZE:  # type: ignore[attr-defined, union-attr]
                raise DataError(f"{shard}: the shard is truncated (no end mark at byte {tar.offset})")

    try:
        for key, parts, fault in grouped(contents(), shard):
            yield TarSample(key, parts, fault)
    except DataError:
        raise
    except Exception as error:  # whatever tarfile, the opener or the command raises
        reason = next((part for part in error.args if isinstance(part, str)), error)
        raise DataError(f"{shard}: the shard cannot be read ({reason})") from None
