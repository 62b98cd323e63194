"""How a set of shards is laid out: names, suffixes, manifest. Standard library only, so that `shards` stays quick."""

import glob
import math
import os
import re
from collections.abc import Sequence
from typing import Literal, get_args

from sinkablate.errors import UserError

IMAGE_SUFFIXES = (
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "png",
    "webp",
    "gif",
    "avif",
    "bmp",
    "dib",
    "ppm",
    "pgm",
    "pbm",
    "pnm",
    "tif",
    "tiff",
    "jp2",
)
"""Of files that are read as images, in lower case; what a file holds is decided by its content."""
LABEL_SUFFIX = "cls"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Suffixes of shards that are decompressed into memory."""
SHARD_SUFFIXES = (".tar", *COMPRESSED)
MANIFEST = "manifest.json"
MOST_SHARDS = 1_000_000

Reason = Literal[
    "empty file",
    "unreadable file",
    "cannot be decoded",
    "too many pixels",
    "unknown range of pixels",
    "number of channels",
    "too small",
    "no image or no label",
    "several images",
    "key given twice",
    "wrong label",
    "unreadable shard",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""Why a sample or a shard is skipped: the keys of `skipped` in `summary.json`."""


class DataError(UserError):
    """A shard or sample that cannot be read, or holds something it must not.

    torch re-raises an exception of a DataLoader worker as `type(error)("Caught … Traceback …")`. What a user should
    see is the message of the original: all that follows this class's name in that text.
    """

    def __init__(self, message: str, reason: Reason = "unreadable shard") -> None:
        super().__init__(message.rsplit(f"{__name__}.{type(self).__name__}: ", 1)[-1])
        self.reason: Reason = reason


def is_remote(location: str) -> bool:
    """True for what only a stream can read: `pipe:command`, or a URL that is not `file:`."""
    return location.startswith("pipe:") or ("://" in location and not location.startswith("file:"))


def expand(location: str, key: str) -> list[str]:
    """List the shards that a location names.

    Args:
        location: A path, directory, glob or brace list (`{0000..1023}`), a URL or `pipe:command`, or several of them
            joined by `::`.
        key: The configuration key it comes from, for messages.

    Returns:
        Paths and URLs: in the order given, and sorted within a directory or glob.

    Raises:
        UserError: The location is empty, names an environment variable that is not set, or matches nothing.
    """
    require_set(location, key)
    from braceexpand import braceexpand

    shards: list[str] = []
    for part in location.split("::"):
        if _numbers(part) > MOST_SHARDS:
            raise UserError(f"{key}={part}: names more than {MOST_SHARDS:,} shards")
        for url in braceexpand(part):
            shards += [url] if is_remote(url) else map(_local, _expand_local(local_path(url), key))
    return shards


def local_path(location: str) -> str:
    """A location without `file:` in front."""
    return location.removeprefix("file://").removeprefix("file:")


def _local(path: str) -> str:
    """A path that nothing takes for a URL or a command, whatever the file is called."""
    return os.path.join(".", path) if is_remote(path) else path


def _numbers(location: str) -> int:
    """How many shards the ranges of numbers in a location name, such as {0000..1023}."""
    return math.prod(abs(int(last) - int(first)) + 1 for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", location))


def require_set(location: str, key: str) -> None:
    """Refuse an empty location, and one that is the bare name of an unset variable (`${oc.env:X,$X}` in a config).

    Raises:
        UserError: As above.
    """
    if not location:
        raise UserError(f"{key} is empty: name the shards or the folder to read")
    if location.startswith("$"):
        raise UserError(f"{key}={location}: set the environment variable {location[1:]}, or {key} itself")


def _expand_local(path: str, key: str) -> list[str]:
    if os.path.isdir(path):
        found = shards_in(path)
        if not found:
            raise UserError(f"{key}={path}: the directory holds no {' or '.join(SHARD_SUFFIXES)} file")
        return found
    found = [path] if os.path.exists(path) or not glob.has_magic(path) else sorted(glob.glob(path))
    if not found:
        raise UserError(f"{key}={path}: no file matches")
    zst = next((name for name in found if name.endswith((".zst", ".zstd"))), None)
    if zst:
        raise UserError(
            f"{key}={zst}: Zstandard is not read; decompress the shard (zstd -d) or use {', '.join(SHARD_SUFFIXES)}"
        )
    return found


def shards_in(folder: str) -> list[str]:
    """Paths of the shards that a folder holds, sorted."""
    return sorted(
        entry.path for entry in os.scandir(folder) if entry.name.endswith(SHARD_SUFFIXES) and not is_hidden(entry.name)
    )


def is_hidden(name: str) -> bool:
    """True for what an operating system or a notebook leaves behind: `.ipynb_checkpoints`, `._1.png`, `Thumbs.db`."""
    dotted = name.startswith(".") and name not in (".", "..")
    return dotted or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def is_compressed(shard: str) -> bool:
    """True for a shard that cannot be read at random."""
    return shard.endswith(COMPRESSED)


def shard_name(url: str) -> str:
    """The file name in a path, URL or pipe command: what the manifest lists and messages show."""
    names = re.findall(r"[^/\s'\"=]+\.(?:tar(?:\.(?:gz|bz2|xz|zst))?|tgz)\b", url)
    return names[-1] if names else url


def beside(url: str, name: str) -> str:
    """The address of another file next to a shard, for every kind of address (`pipe:curl …/a.tar` too)."""
    shard = shard_name(url)
    return name.join(url.rsplit(shard, 1)) if shard in url else url


def is_sample(name: str) -> bool:
    """False for a tar member that is not part of a sample: hidden, webdataset's `__…__`, or without a suffix."""
    return not re.match(r"__[^/]*__($|/)", name) and not any(map(is_hidden, name.split("/"))) and all(split_name(name))


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and lower-case suffix at the first dot of its last part, as webdataset does."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def image_suffix(suffixes: Sequence[str], where: str) -> str | None:
    """The one of a sample's suffixes that is its image, or None.

    `png` comes before `depth.png`; a suffix with dots is taken where no other is an image, as in `22.05.png`.

    Raises:
        DataError: Several could be meant.
    """
    return _one_of(suffixes, IMAGE_SUFFIXES, where)


def labeled_image(suffixes: Sequence[str], where: str) -> tuple[str, str]:
    """Those of a sample's suffixes that are its image and its label.

    Raises:
        DataError: The sample has no image or no label, or several could be meant.
    """
    image, label = image_suffix(suffixes, where), _one_of(suffixes, (LABEL_SUFFIX,), where)
    if image is None or label is None:
        raise DataError(
            f"{where}: needs an image and a .{LABEL_SUFFIX} file, has {sorted(suffixes)}", "no image or no label"
        )
    return image, label


def _one_of(suffixes: Sequence[str], kinds: Sequence[str], where: str) -> str | None:
    found = [suffix for suffix in suffixes if suffix in kinds] or [
        suffix for suffix in suffixes if suffix.rpartition(".")[2] in kinds
    ]
    if len(found) > 1:
        names = ", ".join(f".{suffix}" for suffix in found)
        raise DataError(
            f"{where}: one sample holds {names}, and which is meant is not clear; the key of a sample ends "
            "at the first dot of a name, so rename what are samples of their own (22.05.png to 22_05.png)",
            "several images",
        )
    return found[0] if found else None


def parse_label(data: bytes, num_classes: int, where: str) -> int:
    """Read the content of a `.cls` file.

    Raises:
        DataError: It is not an integer, or not in [0, num_classes).
    """
    try:
        label = int(data)
    except ValueError:
        raise DataError(f"{where}: the label {data[:40]!r} is not an integer", "wrong label") from None
    return check_label(label, num_classes, where)


def check_label(label: int, num_classes: int, where: str) -> int:
    """Return the label.

    Raises:
        DataError: It is not in [0, num_classes).
    """
    if not 0 <= label < num_classes:
        raise DataError(
            f"{where}: the label {label} is outside [0, {num_classes}), see data.source.num_classes", "wrong label"
        )
    return label
