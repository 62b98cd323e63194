"""What the command `shards` packs: images from IDX files or from one folder per class."""

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.data.idx import read_labeled_idx
from sinkablate.data.image_files import class_folders, format_counts, labeled_files
from sinkablate.errors import UserError

_IDX_PREFIXES = {"train": "train", "val": "t10k"}


class SourceSplit(NamedTuple):
    """One split of a source: labels (n,), and a function that reads the i-th image as (bytes, suffix)."""

    labels: NDArray[np.int64]
    read: Callable[[int], tuple[bytes, str]]
    classes: list[str]
    skipped: "Counter[str]"
    """Files that are not packed, by reason."""


def open_splits(src: Path, split: Literal["all", "train", "val"]) -> dict[str, SourceSplit]:
    """Open the splits of a source directory.

    Args:
        src: A directory with IDX files, with one folder of images per class, or with folders train and val of such
            folders.
        split: Which split to open; `all` opens train and val, or a single directory of class folders as train.

    Raises:
        UserError: The directory does not exist, its layout is not known, or it contains no images.
    """
    if not src.is_dir():
        raise UserError(f"src={src}: no such directory")
    names = ("train", "val") if split == "all" else (split,)
    if any(src.glob("*-images-idx3-ubyte*")):
        return {name: _open_idx(src, _IDX_PREFIXES[name]) for name in names}
    if not any(entry.is_dir() for entry in src.iterdir()):
        raise UserError(f"src={src}: contains neither IDX files nor one folder of images per class")
    if not all((src / name).is_dir() for name in names):
        return {"train" if split == "all" else split: _open_folder(src)}
    classes = class_folders(src / "train", str(src / "train")) if (src / "train").is_dir() else None
    return {name: _open_folder(src / name, None if name == "train" else classes) for name in names}


def _open_folder(root: Path, classes: list[str] | None = None) -> SourceSplit:
    """Open a directory with one folder per class.

    Args:
        root: The directory.
        classes: The classes of the training set; None if `root` is the training set.
    """
    listing = labeled_files(root, str(root), classes)
    skipped = listing.skipped
    readable = []
    for label, path in sorted(zip(listing.labels, map(Path, listing.files), strict=True)):
        try:
            fault = None if path.stat().st_size else "empty file"
        except OSError:  # for example a broken link
            fault = "unreadable file"
        if fault:
            skipped[fault] += 1
        else:
            readable.append((label, path))
    others = skipped.total() - skipped["empty file"] - skipped["unreadable file"]
    if others > len(readable) * (1 if len(listing.classes) == 1 else 2):
        raise UserError(
            f"{root}: contains {len(readable)} images among {others} other files ({format_counts(skipped)}); "
            "one folder of images per class is needed"
        )
    if not readable:
        raise UserError(f"{root}: contains no images ({format_counts(skipped) or 'its class folders are empty'})")

    def read(index: int) -> tuple[bytes, str]:
        path = readable[index][1]
        try:
            return path.read_bytes(), path.suffix.lower().lstrip(".")
        except OSError as error:
            raise UserError(f"{path}: the file cannot be read ({error.strerror})") from None

    return SourceSplit(np.array([label for label, _ in readable]), read, listing.classes, skipped)


def _open_idx(src: Path, prefix: str) -> SourceSplit:
    images, labels = read_labeled_idx(src, prefix)

    def png(index: int) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        Image.fromarray(images[index]).save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"

    return SourceSplit(labels.astype(np.int64), png, [str(label) for label in range(int(labels.max()) + 1)], Counter())
