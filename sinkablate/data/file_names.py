"""Names of files and tar members: which are images, which are labels, and what belongs to one sample."""

import re
from collections.abc import Sequence

from sinkablate.data.errors import DataError

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
"""Lower-case suffixes of files that are read as images; the format itself is detected from the content."""
LABEL_SUFFIX = "cls"


def is_hidden(name: str) -> bool:
    """Whether a name is one that an operating system or a notebook leaves behind.

    Examples: `.ipynb_checkpoints`, `._1.png`, `Thumbs.db`.
    """
    dotted = name.startswith(".") and name not in (".", "..")
    return dotted or name.lower() in ("thumbs.db", "desktop.ini", "__macosx")


def is_sample(name: str) -> bool:
    """Whether a tar member is part of a sample: not hidden, not webdataset's `__…__`, and with a suffix."""
    return not re.match(r"__[^/]*__($|/)", name) and not any(map(is_hidden, name.split("/"))) and all(split_name(name))


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a member into key and lower-case suffix, at the first dot of the last part as in webdataset."""
    folder, _, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()


def image_suffix(suffixes: Sequence[str], where: str) -> str | None:
    """Return the suffix of a sample's image, or None if it has no image.

    `png` takes precedence over `depth.png`; a suffix that contains dots is used only if no other suffix is an image,
    as in `22.05.png`.

    Args:
        suffixes: All suffixes of the sample.
        where: Names the sample in messages.

    Raises:
        DataError: Several suffixes could be the image.
    """
    return _only(suffixes, IMAGE_SUFFIXES, where)


def labeled_image(suffixes: Sequence[str], where: str) -> tuple[str, str]:
    """Return the suffixes of a sample's image and of its label.

    Args:
        suffixes: All suffixes of the sample.
        where: Names the sample in messages.

    Raises:
        DataError: The sample has no image or no label, or several suffixes could be meant.
    """
    image, label = image_suffix(suffixes, where), _only(suffixes, (LABEL_SUFFIX,), where)
    if image is None or label is None:
        raise DataError(
            f"{where}: a sample needs an image and a .{LABEL_SUFFIX} file; this one has {sorted(suffixes)}",
            "no image or no label",
        )
    return image, label


def _only(suffixes: Sequence[str], kinds: Sequence[str], where: str) -> str | None:
    matches = [suffix for suffix in suffixes if suffix in kinds] or [
        suffix for suffix in suffixes if suffix.rpartition(".")[2] in kinds
    ]
    if len(matches) > 1:
        names = ", ".join(f".{suffix}" for suffix in matches)
        raise DataError(
            f"{where}: the sample is ambiguous: it has {names}; the key of a sample ends at the first dot of a name, "
            "so rename files that are separate samples (22.05.png to 22_05.png)",
            "several images",
        )
    return matches[0] if matches else None


def parse_label(data: bytes, num_classes: int, where: str) -> int:
    """Parse the content of a `.cls` file.

    Raises:
        DataError: It is not an integer, or not in [0, num_classes).
    """
    try:
        label = int(data)
    except ValueError:
        raise DataError(f"{where}: the label {data[:40]!r} is not an integer", "wrong label") from None
    return check_label(label, num_classes, where)


def check_label(label: int, num_classes: int, where: str) -> int:
    """Return the label if it is valid.

    Raises:
        DataError: It is not in [0, num_classes).
    """
    if not 0 <= label < num_classes:
        raise DataError(
            f"{where}: the label {label} is not in [0, {num_classes}); see data.source.num_classes", "wrong label"
        )
    return label
