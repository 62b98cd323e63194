"""Files next to shards that describe their content: `manifest.json` of this package, and `_info.json` of timm."""

import json
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from sinkablate.data.locations import MANIFEST, is_compressed, is_remote, shard_name, sibling
from sinkablate.errors import UserError

_MAX_COUNT = 2**31 - 1
_MIN_SAMPLE_BYTES = 2048
"""Smallest size of an image and a label in a tar: a header and one block of content each."""


class Manifest(NamedTuple):
    """Number of samples per shard by file name, and class names in the order of the labels; empty if not known."""

    counts: dict[str, int]
    classes: list[str]


def read_manifest(shard: str) -> Manifest:
    """Read the manifest next to a shard; it is empty if no such file exists or can be reached.

    Raises:
        UserError: The file is damaged, or a number of samples is impossible.
    """
    for name, parse in ((MANIFEST, _parse_manifest), ("_info.json", _parse_timm_info)):
        path = sibling(shard, name)
        content = _read(path) if path != shard else None
        if content is None:
            continue
        try:
            manifest = parse(json.loads(content))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UserError(
                f"{path}: not a list of the samples in each shard ({type(error).__name__}: {error}); "
                "`python -m sinkablate shards` writes one"
            ) from None
        for listed, count in manifest.counts.items():
            _require_count(count, listed, path, shard)
        return manifest
    return Manifest({}, [])


def read_classes(shard: str) -> list[str]:
    """Class names in the manifest next to a local shard; empty if there is none.

    Shards that are read at random do not need a manifest, so a file of that name with other content is ignored.
    """
    content = None if is_remote(shard) else _read(sibling(shard, MANIFEST))
    try:
        return _class_names(json.loads(content or b"{}").get("classes"))
    except (AttributeError, TypeError, ValueError, RecursionError):
        return []


def _read(url: str) -> bytes | None:
    try:
        if not is_remote(url):
            with open(url, "rb") as local:
                return local.read()
        from webdataset.gopen import gopen

        with gopen(url) as remote:
            content: bytes = remote.read()
        return content or None
    except Exception:  # missing or unreachable; each kind of address raises its own exceptions
        return None


def _parse_manifest(content: Any) -> Manifest:
    return Manifest(
        {str(name): count for name, count in _mapping(content["shards"]).items()}, _class_names(content.get("classes"))
    )


def _parse_timm_info(content: Any) -> Manifest:
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


def _class_names(value: Any) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("classes is not a list of names")
    return value


def _require_count(count: Any, listed: str, path: str, shard: str) -> None:
    """Check that a number of samples is a nonnegative integer, and that the file is large enough for it."""
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= _MAX_COUNT:
        raise UserError(
            f"{path}: {listed}: {str(count)[:40]} is not a number of samples; `python -m sinkablate shards` writes a "
            "valid manifest"
        )
    listed_shard = sibling(shard, listed)
    if (
        count
        and not is_remote(listed_shard)
        and not is_compressed(listed_shard)
        and os.path.isfile(listed_shard)
        and count * _MIN_SAMPLE_BYTES > os.path.getsize(listed_shard)
    ):
        raise UserError(
            f"{path}: {shard_name(listed_shard)}: {count} samples do not fit into its "
            f"{os.path.getsize(listed_shard):,} bytes"
        )
