"""The classes of a training set: their number and their names, which validation and test sets follow."""

from collections.abc import Mapping
from typing import Any

from sinkablate.config import EMBEDDED_CLASSES, SourceConfig, build
from sinkablate.data.files import class_folders
from sinkablate.data.layout import expand, require_set
from sinkablate.data.manifest import read_classes
from sinkablate.errors import UserError


def source_of(values: Mapping[str, Any]) -> SourceConfig:
    """The group `data.source` from plain values, as a parser has them.

    Raises:
        UserError: They make no sense.
    """
    source: SourceConfig = build(SourceConfig, values, "data.source")
    return source


def class_names(source: SourceConfig) -> list[str]:
    """The names of the training classes, in the order of the labels; empty where the data do not name them.

    Raises:
        UserError: The training set is not there.
    """
    where = f"data.source.train={source.train}"
    if source.format == "folder":
        require_set(source.train, "data.source.train")
        return class_folders(source.train, where)
    return read_classes(expand(source.train, "data.source.train")[0]) if source.format == "shards" else []


def number_of_classes(source: SourceConfig) -> int:
    """What `data.source.num_classes` says, or else the data.

    Raises:
        UserError: Neither says it, or the training set is not there.
    """
    if source.num_classes is not None:
        return source.num_classes
    if source.format == "embedded":
        return EMBEDDED_CLASSES
    names = class_names(source)
    if not names:
        raise UserError(
            "data.source.num_classes is not set, and the shards do not say how many classes there are "
            "(manifest.json lists them next to the shards that `python -m sinkablate shards` writes)"
        )
    if len(names) == 1:
        raise UserError(
            f"data.source.train={source.train}: holds one class only, {names[0]}; name the folder of the "
            "class folders, or set data.source.num_classes=1 if that is meant"
        )
    return len(names)


def require_number(names: list[str], num_classes: int, where: str) -> None:
    """See that a training set has the number of classes that the model tells apart.

    Raises:
        UserError: It has another one.
    """
    if names and len(names) != num_classes:
        listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        raise UserError(
            f"data.source.num_classes={num_classes}, but {where} has {len(names)} classes ({listed}); "
            "leave data.source.num_classes out (or null) to take their number"
        )


def require_same(names: list[str], training: list[str], where: str) -> None:
    """See that shards number their classes as the training shards do.

    Raises:
        UserError: They do not, so that labels would be shifted.
    """
    if names and training and names != training:
        place = next(
            (i for i, pair in enumerate(zip(names, training, strict=False)) if pair[0] != pair[1]),
            min(len(names), len(training)),
        )
        ours, theirs = (listed[place] if place < len(listed) else "missing" for listed in (names, training))
        raise UserError(
            f"{where}: class {place} is {ours} here and {theirs} in the training shards; write both with "
            "one `python -m sinkablate shards`"
        )
