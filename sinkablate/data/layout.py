"""How a set of shards is laid out: names, suffixes, manifest. Standard library only, so that `shards` stays quick."""

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path

from sinkablate.errors import UserError

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "tif", "tiff")
LABEL_SUFFIX = "cls"
SHARD_SUFFIXES = (".tar", ".tar.gz")
MANIFEST = "manifest.json"


class DataError(UserError):
    """A shard or sample that cannot be read, or holds what it must not.

    torch re-raises an exception of a DataLoader worker as `type(error)("Caught … Traceback …")`. What a user should
    see is the message of the original: all that follows this class's name in that text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit(f"{__name__}.{type(self).__name__}: ", 1)[-1])


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
        for url in braceexpand(part):
            shards += [url] if is_remote(url) else _expand_local(url.removeprefix("file://").removeprefix("file:"), key)
    return shards


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
        found = sorted(str(file) for file in Path(path).iterdir() if file.name.endswith(SHARD_SUFFIXES))
        if not found:
            raise UserError(f"{key}={path}: the directory holds no {' or '.join(SHARD_SUFFIXES)} file")
        return found
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    found = sorted(glob.glob(path))
    if not found:
        raise UserError(f"{key}={path}: no file matches")
    return found


def shard_name(url: str) -> str:
    """The file name in a path, URL or pipe command: what the manifest lists and messages show."""
    names = re.findall(r"[^/\s'\"=]+\.tar(?:\.gz)?\b", url)
    return names[-1] if names else url


def beside(url: str, name: str) -> str:
    """The address of another file next to a shard, for every kind of address (`pipe:curl …/a.tar` too)."""
    shard = shard_name(url)
    return name.join(url.rsplit(shard, 1)) if shard in url else url


def is_metadata(name: str) -> bool:
    """True for a tar member that holds no sample (webdataset's `__…__` names)."""
    return re.match(r"__[^/]*__($|/)", name) is not None


def split_name(name: str) -> tuple[str, str]:
    """Split a member's name into key and lower-case suffix at the first dot of its last part, as webdataset does."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def image_suffix(suffixes: Sequence[str], where: str) -> str:
    """The one of a sample's suffixes that is its image.

    Raises:
        DataError: The sample has no image or no label.
    """
    images = [suffix for suffix in suffixes if suffix in IMAGE_SUFFIXES]
    if not images or LABEL_SUFFIX not in suffixes:
        raise DataError(f"{where}: needs an image and a .{LABEL_SUFFIX} file, has {sorted(suffixes)}")
    return images[0]


def parse_label(data: bytes, num_classes: int, where: str) -> int:
    """Read the content of a `.cls` file.

    Raises:
        DataError: It is not an integer, or not in [0, num_classes).
    """
    try:
        label = int(data)
    except ValueError:
        raise DataError(f"{where}: the label {data[:40]!r} is not an integer") from None
    return check_label(label, num_classes, where)


def check_label(label: int, num_classes: int, where: str) -> int:
    """Return the label.

    Raises:
        DataError: It is not in [0, num_classes).
    """
    if not 0 <= label < num_classes:
        raise DataError(f"{where}: the label {label} is outside [0, {num_classes}), see data.source.num_classes")
    return label
