"""Image files in folders: which files are read, in which order, and to which class each belongs.

Standard library only.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from sinkablate.data.file_names import IMAGE_SUFFIXES, is_hidden
from sinkablate.errors import UserError
from sinkablate.files.suggestions import first_few

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class ImageFiles(NamedTuple):
    """The images below a folder, and the number of other files by reason."""

    files: list[str]
    skipped: Counter[str]


class LabeledFiles(NamedTuple):
    """The images of a set with one folder per class; labels are indices into `classes`."""

    files: list[str]
    labels: list[int]
    classes: list[str]
    skipped: Counter[str]


def image_files(folder: str | Path) -> ImageFiles:
    """List the images below a folder in the order of torchvision's ImageFolder.

    Links to folders are followed; hidden files and folders are ignored.

    Raises:
        UserError: A folder cannot be listed.
    """
    images_by_folder: list[tuple[str, list[str]]] = []
    skipped: Counter[str] = Counter()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not is_hidden(name) and not _is_link_to_parent(root, name)]
        images = []
        for name in names:
            suffix = _suffix(name)
            if suffix in IMAGE_SUFFIXES:
                images.append(name)
            elif not is_hidden(name):
                skipped[_not_an_image(suffix)] += 1
        images_by_folder.append((root, [name for name in sorted(images) if not is_hidden(name)]))
    return ImageFiles([os.path.join(root, name) for root, names in sorted(images_by_folder) for name in names], skipped)


def class_folders(root: str | Path, where: str) -> list[str]:
    """Names of the folders that represent classes, in the order of their labels.

    Args:
        root: A training set.
        where: Names the set in messages.

    Raises:
        UserError: The directory does not exist, it contains no folders, or its folders are the splits of a data set.
    """
    if not os.path.isdir(root):
        raise UserError(f"{where}: no such directory")
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        _refuse(error)
    if not classes:
        raise UserError(f"{where}: contains no folders; one folder of images per class is needed")
    if {name.lower() for name in classes} <= _SPLITS:
        raise UserError(
            f"{where}: its folders ({', '.join(classes)}) are splits, not classes; name one of them, such as "
            f"{os.path.join(root, classes[0])}"
        )
    return classes


def labeled_files(root: str | Path, where: str, classes: Sequence[str] | None = None) -> LabeledFiles:
    """List the images of a set with one folder per class.

    Args:
        root: The set.
        where: Names the set in messages.
        classes: The classes of the training set, whose order determines the labels; None if `root` is the training set.

    Raises:
        UserError: The class folders are invalid (see `class_folders`), a class of the training set has no images, or a
            folder is not a class of the training set.
    """
    folders = class_folders(root, where)
    labels_by_name = {name: label for label, name in enumerate(folders if classes is None else classes)}
    unknown = [name for name in folders if name not in labels_by_name]
    if unknown:
        raise UserError(
            f"{where}: {first_few(unknown)} {'are' if len(unknown) > 1 else 'is'} not among the {len(labels_by_name)} "
            f"classes of the training set ({first_few(list(labels_by_name))}); its folder names define the labels"
        )
    files: list[str] = []
    labels: list[int] = []
    skipped: Counter[str] = Counter()
    for entry in os.scandir(root):
        if not is_hidden(entry.name) and not entry.is_dir():
            suffix = _suffix(entry.name)
            skipped["image outside the class folders" if suffix in IMAGE_SUFFIXES else _not_an_image(suffix)] += 1
    for name in folders:
        images = image_files(os.path.join(root, name))
        if classes is None and not images.files:
            raise UserError(
                f"{where}: the class folder {name} contains no images"
                + (f" (skipped: {format_counts(images.skipped)})" if images.skipped else "")
            )
        files += images.files
        labels += [labels_by_name[name]] * len(images.files)
        skipped += images.skipped
    return LabeledFiles(files, labels, list(labels_by_name), +skipped)


def size_and_time(path: str | Path) -> tuple[int, int]:
    """Return the size of a file and the time of its last change in ns; (-1, -1) for a URL or a missing file."""
    try:
        state = os.stat(path)
    except OSError:  # a missing file is reported when it is read
        return -1, -1
    return state.st_size, state.st_mtime_ns


def format_counts(counts: Counter[str] | dict[str, int]) -> str:
    """Format counts by reason for a message, the largest first: `empty file: 3, wrong label: 1`."""
    return ", ".join(f"{reason}: {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower().removeprefix(".")


def _not_an_image(suffix: str) -> str:
    return f"not an image that can be read (.{suffix})" if suffix else "not an image (no suffix)"


def _is_link_to_parent(root: str, name: str) -> bool:
    """Whether a name is a link to a folder that contains it, which would make the walk endless."""
    path = os.path.join(root, name)
    return os.path.islink(path) and f"{os.path.realpath(root)}{os.sep}".startswith(f"{os.path.realpath(path)}{os.sep}")


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: the folder cannot be listed ({error.strerror})") from None
