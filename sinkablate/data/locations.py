"""Where shards are: paths, directories, globs, URLs and commands."""

import glob
import math
import os
import re

from sinkablate.data.file_names import is_hidden
from sinkablate.errors import UserError

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of shards that are decompressed into memory."""
SHARD_SUFFIXES = (".tar", *COMPRESSED)
MANIFEST = "manifest.json"
MAX_SHARDS = 1_000_000


def is_remote(location: str) -> bool:
    """Whether only a stream can read a location: `pipe:command`, or a URL other than `file:`."""
    return location.startswith("pipe:") or ("://" in location and not location.startswith("file:"))


def expand_location(location: str, key: str) -> list[str]:
    """List the shards that a location names.

    Args:
        location: A path, directory, glob or brace list (`{0000..1023}`), a URL or `pipe:command`, or several of them
            joined by `::`.
        key: The configuration key of the location, for messages.

    Returns:
        Paths and URLs, in the given order; sorted within a directory or glob.

    Raises:
        UserError: The location is empty, names an environment variable that is not set, or matches nothing.
    """
    require_location(location, key)
    from braceexpand import braceexpand

    shards: list[str] = []
    for part in location.split("::"):
        if _count_numbers(part) > MAX_SHARDS:
            raise UserError(f"{key}={part}: more than {MAX_SHARDS:,} shards")
        for url in braceexpand(part):
            shards += [url] if is_remote(url) else map(_as_path, _expand_local(local_path(url), key))
    return shards


def local_path(location: str) -> str:
    """Remove a leading `file:` from a location."""
    return location.removeprefix("file://").removeprefix("file:")


def _as_path(path: str) -> str:
    """Write a path so that no reader takes it for a URL or a command, whatever the name of the file."""
    return os.path.join(".", path) if is_remote(path) else path


def _count_numbers(location: str) -> int:
    """Number of shards that the numeric ranges of a location name, such as {0000..1023}."""
    return math.prod(abs(int(last) - int(first)) + 1 for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", location))


def require_location(location: str, key: str) -> None:
    """Refuse an empty location, and the bare name of an unset environment variable (`${oc.env:X,$X}` in a config).

    Raises:
        UserError: The location is one of these.
    """
    if not location:
        raise UserError(f"{key} is empty; set it to the shards or the folder to read")
    if location.startswith("$"):
        raise UserError(
            f"{key}={location}: the environment variable is not set; set {location[1:]}, or set {key} directly"
        )


def _expand_local(path: str, key: str) -> list[str]:
    if os.path.isdir(path):
        shards = shards_in(path)
        if not shards:
            raise UserError(f"{key}={path}: the directory contains no shards ({', '.join(SHARD_SUFFIXES)})")
        return shards
    paths = [path] if os.path.exists(path) or not glob.has_magic(path) else sorted(glob.glob(path))
    if not paths:
        raise UserError(f"{key}={path}: no file matches")
    zstandard = next((name for name in paths if name.endswith((".zst", ".zstd"))), None)
    if zstandard:
        raise UserError(
            f"{key}={zstandard}: Zstandard is not supported; decompress the shard (zstd -d) or use "
            f"{', '.join(SHARD_SUFFIXES)}"
        )
    return paths


def shards_in(folder: str) -> list[str]:
    """Sorted paths of the shards in a folder."""
    return sorted(
        entry.path for entry in os.scandir(folder) if entry.name.endswith(SHARD_SUFFIXES) and not is_hidden(entry.name)
    )


def is_compressed(shard: str) -> bool:
    """Whether a shard is compressed as a whole, so it does not allow random access."""
    return shard.endswith(COMPRESSED)


def shard_name(url: str) -> str:
    """The file name in a path, URL or pipe command, as the manifest lists it and messages show it."""
    names = re.findall(r"[^/\s'\"=]+\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz)\b", url)
    return names[-1] if names else url


def sibling(url: str, name: str) -> str:
    """The address of another file next to a shard, for every kind of address (also `pipe:curl …/a.tar`)."""
    shard = shard_name(url)
    return name.join(url.rsplit(shard, 1)) if shard in url else url
