"""Image files in folders: which are found, in which order, and to which class they belong. Standard library only."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from sinkablate.data.layout import IMAGE_SUFFIXES, is_hidden
from sinkablate.errors import UserError

_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}


class FoundFiles(NamedTuple):
    """The images below a folder, and how many other files there are, by reason."""

    files: list[str]
    skipped: Counter[str]


class LabeledFiles(NamedTuple):
    """The images of a set with one folder per class; labels are places in `classes`."""

    files: list[str]
    labels: list[int]
    classes: list[str]
    skipped: Counter[str]


def image_files(folder: str | Path) -> FoundFiles:
    """List the images below a folder in the order of torchvision's ImageFolder.

    Links to folders are followed; hidden files and folders are ignored.

    Raises:
        UserError: A folder cannot be listed.
    """
    found: list[tuple[str, list[str]]] = []
    skipped: Counter[str] = Counter()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = [name for name in folders if not is_hidden(name) and not _leads_back(root, name)]
        images = []
        for name in names:
            suffix = _suffix(name)
            if suffix in IMAGE_SUFFIXES:
                images.append(name)
            elif not is_hidden(name):
                skipped[_other(suffix)] += 1
        found.append((root, [name for name in sorted(images) if not is_hidden(name)]))
    return FoundFiles([os.path.join(root, name) for root, names in sorted(found) for name in names], skipped)


def class_folders(root: str | Path, where: str) -> list[str]:
    """The names of the folders that stand for classes, in the order of their labels.

    Args:
        root: A training set.
        where: Names it in messages.

    Raises:
        UserError: There is no such directory, it holds no folder, or its folders are the splits of a set.
    """
    if not os.path.isdir(root):
        raise UserError(f"{where}: no such directory")
    try:
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        _refuse(error)
    if not classes:
        raise UserError(f"{where}: needs one folder of images per class, and holds no folder")
    if {name.lower() for name in classes} <= _SPLITS:
        raise UserError(
            f"{where}: holds the folders {', '.join(classes)}, which are splits and not classes; name one "
            f"of them, such as {os.path.join(root, classes[0])}"
        )
    return classes


def labeled_files(root: str | Path, where: str, classes: Sequence[str] | None = None) -> LabeledFiles:
    """List the images of a set with one folder per class.

    Args:
        root: The set.
        where: Names it in messages.
        classes: The classes of the training set, by whose names the folders get their labels; None if it is this one.

    Raises:
        UserError: As `class_folders`; a training class without images; a folder that is not a class of the training
            set.
    """
    own = class_folders(root, where)
    known = {name: label for label, name in enumerate(own if classes is None else classes)}
    unknown = [name for name in own if name not in known]
    if unknown:
        raise UserError(
            f"{where}: {_some(unknown)} not among the {len(known)} classes of the training set "
            f"({_some(list(known), verb=False)}); labels follow the names of its folders"
        )
    files: list[str] = []
    labels: list[int] = []
    skipped: Counter[str] = Counter()
    for entry in os.scandir(root):
        if not is_hidden(entry.name) and not entry.is_dir():
            suffix = _suffix(entry.name)
            skipped["image outside the class folders" if suffix in IMAGE_SUFFIXES else _other(suffix)] += 1
    for name in own:
        found = image_files(os.path.join(root, name))
        if classes is None and not found.files:
            raise UserError(
                f"{where}: the class folder {name} holds no image"
                + (f" (skipped: {said(found.skipped)})" if found.skipped else "")
            )
        files += found.files
        labels += [known[name]] * len(found.files)
        skipped += found.skipped
    return LabeledFiles(files, labels, list(known), +skipped)


def said(counts: Counter[str] | dict[str, int]) -> str:
    """Counts by reason in words, the largest first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _some(names: list[str], *, verb: bool = True) -> str:
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return listed + (" are" if len(names) > 1 else " is") * verb


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower().removeprefix(".")


def _other(suffix: str) -> str:
    return f"not an image that can be read (.{suffix})" if suffix else "not an image (no suffix)"


def _leads_back(root: str, name: str) -> bool:
    """True for a link to a folder that the walk is in: the walk would never end."""
    path = os.path.join(root, name)
    return os.path.islink(path) and f"{os.path.realpath(root)}{os.sep}".startswith(f"{os.path.realpath(path)}{os.sep}")


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename}: the folder cannot be listed ({error.strerror})") from None
