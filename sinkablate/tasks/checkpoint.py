"""Comparing what a checkpoint was made with to what is to be loaded from it, by the keys a user sets."""

from collections.abc import Mapping
from typing import Any

from sinkablate.errors import UserError


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys below a prefix, sequences as lists."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = list(value) if isinstance(value, (list, tuple)) else value
    return found


def refuse_another(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Stop at the first key whose value differs; what an older version stored knows no newer key.

    Raises:
        UserError: Names the key and both values.
    """
    for key, value in now.items():
        if key in saved and saved[key] != value:
            raise UserError(f"{key}={value} differs from the checkpoint's {saved[key]}")
