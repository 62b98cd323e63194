"""What lies next to shards and says what they hold: our `manifest.json`, or timm's `_info.json`."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from sinkablate.data.layout import MANIFEST, beside, is_compressed, is_remote, shard_name
from sinkablate.errors import UserError

_LARGEST_COUNT = 2**31 - 1
_SMALLEST_SAMPLE = 2048
"""Bytes of an image and a label in a tar: a header and a block of content each."""


class Manifest(NamedTuple):
    """Samples per shard by file name, and the names of the classes in the order of the labels; empty if not known."""

    counts: dict[str, int]
    classes: list[str]


def read_manifest(shard: str) -> Manifest:
    """Read what lies next to a shard; nothing is known where no file is there or can be reached.

    Raises:
        UserError: The file is there and is damaged, or counts what cannot be.
    """
    for name, parse in ((MANIFEST, _ours), ("_info.json", _timms)):
        where = beside(shard, name)
        content = _content(where) if where != shard else None
        if content is None:
            continue
        try:
            found = parse(json.loads(content))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{where}: not a list of the samples in each shard ({type(error).__name__}: {error}); "
                "`python -m sinkablate shards` writes it"
            ) from None
        for listed, count in found.counts.items():
            _require_count(count, listed, where, shard)
        return found
    return Manifest({}, [])


def read_classes(shard: str) -> list[str]:
    """The names of the classes that the manifest next to a local shard lists; empty where none does.

    Shards that are read at random need no manifest, so that a file of that name may hold anything.
    """
    content = None if is_remote(shard) else _content(beside(shard, MANIFEST))
    try:
        return _names(json.loads(content or b"{}").get("classes"))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return []


def _content(url: str) -> bytes | None:
    try:
        if not is_remote(url):
            with open(url, "rb") as local:
                return local.read()
        from webdataset.gopen import gopen

        with gopen(url) as remote:
            content: bytes = remote.read()
        return content or None
    except Exception:  # absent or unreachable, in as many ways as there are kinds of addresses
        return None


def _ours(content: Any) -> Manifest:
    return Manifest(
        {str(name): count for name, count in _mapping(content["shards"]).items()}, _names(content.get("classes"))
    )


def _timms(content: Any) -> Manifest:
    splits = _mapping(content["splits"]).values()
    return Manifest(
        {
            str(name): count
            for split in splits
            for name, count in zip(split["filenames"], split["shard_lengths"], strict=True)
        },
        [],
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{str(value)[:40]} is not a mapping")
    return value


def _names(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("classes is not a list of names")
    return value


def _require_count(count: Any, listed: str, where: str, shard: str) -> None:
    """See that a count is a whole number, and not larger than the file has room for."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _LARGEST_COUNT:
        raise UserError(
            f"{where}: {listed}: {str(count)[:40]} is not a number of samples; `python -m sinkablate shards` writes it"
        )
    path = beside(shard, listed)
    if (
        count
        and not is_remote(path)
        and not is_compressed(path)
        and os.path.isfile(path)
        and count * _SMALLEST_SAMPLE > os.path.getsize(path)
    ):
        raise UserError(
            f"{where}: {shard_name(path)}: {count} samples do not fit into its {os.path.getsize(path):,} bytes"
        )
