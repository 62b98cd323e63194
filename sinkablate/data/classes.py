"""The classes of a training set, their number and names; labels of validation and test sets follow them."""

from collections.abc import Mapping
from typing import Any

from sinkablate.config import BUILT_IN, EMBEDDED_CLASSES, SourceConfig, build
from sinkablate.data.image_files import class_folders
from sinkablate.data.locations import expand_location, require_location
from sinkablate.data.manifest import read_classes
from sinkablate.errors import UserError


def source_of(values: Mapping[str, Any]) -> SourceConfig:
    """Build the group `data.source` from plain values, as a parser returns them.

    Raises:
        UserError: A value is invalid.
    """
    source: SourceConfig = build(SourceConfig, values, "data.source")
    return source


def class_names(source: SourceConfig) -> list[str]:
    """Names of the training classes, in the order of the labels; empty if the data do not name them.

    Raises:
        UserError: The training set does not exist.
    """
    where = f"data.source.train={source.train}"
    if source.format == "folder":
        require_location(source.train, "data.source.train")
        return class_folders(source.train, where)
    return read_classes(expand_location(source.train, "data.source.train")[0]) if source.format == "shards" else []


def number_of_classes(source: SourceConfig) -> int:
    """Number of classes: `data.source.num_classes` if it is set, otherwise the number in the training set.

    Raises:
        UserError: The number is neither set nor known from the data, or the training set does not exist.
    """
    if source.num_classes is not None:
        return source.num_classes
    if source.format in BUILT_IN:
        return EMBEDDED_CLASSES
    names = class_names(source)
    if not names:
        raise UserError(
            "data.source.num_classes is not set, and the shards do not specify the number of classes; set it, or write "
            "the shards with `python -m sinkablate shards`, which lists the classes in manifest.json"
        )
    if len(names) == 1:
        raise UserError(
            f"data.source.train={source.train}: contains only one class, {names[0]}; name the folder that contains "
            "the class folders, or set data.source.num_classes=1 if this is intended"
        )
    return len(names)


def require_number(names: list[str], num_classes: int, where: str) -> None:
    """Check that a training set has as many classes as the model.

    Args:
        names: The classes of the training set; empty if they are not known.
        num_classes: Number of classes of the model.
        where: Names the training set in messages.

    Raises:
        UserError: The numbers differ.
    """
    if names and len(names) != num_classes:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UserError(
            f"data.source.num_classes={num_classes}: {where} has {len(names)} classes ({listed}); "
            "omit data.source.num_classes (or set it to null) to use their number"
        )


def require_same(names: list[str], training: list[str], where: str) -> None:
    """Check that shards number their classes as the training shards do.

    Args:
        names: The classes of the shards; empty if they are not known.
        training: The classes of the training shards.
        where: Names the shards in messages.

    Raises:
        UserError: The classes differ, so labels would be shifted.
    """
    if names and training and names != training:
        label = next(
            (i for i, pair in enumerate(zip(names, training, strict=False)) if pair[0] != pair[1]),
            min(len(names), len(training)),
        )
        own, expected = (listed[label] if label < len(listed) else "missing" for listed in (names, training))
        raise UserError(
            f"{where}: class {label} is {own}, but {expected} in the training shards; write both sets with one call to "
            "`python -m sinkablate shards`"
        )
