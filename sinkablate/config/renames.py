"""Keys that had another name in earlier versions."""

from collections.abc import Mapping
from typing import Any

from sinkablate.config.checks import flat
from sinkablate.errors import UserError

RENAMED = {
    "data.views.grey_prob": "data.views.grayscale_prob",
    "data.views.solarise_prob": "data.views.solarize_prob",
    "model.lejepa.directions": "model.lejepa.num_slices",
    "model.lejepa.hidden": "model.lejepa.proj_hidden_dim",
    "model.lejepa.out": "model.lejepa.proj_dim",
}
"""Full key in earlier versions -> current key."""


def refuse_renamed(tree: Mapping[Any, Any], place: str = "") -> None:
    """Refuse keys of earlier versions.

    Args:
        tree: Nested or dotted keys.
        place: Beginning of the message, such as the name of a file.

    Raises:
        UserError: Names the first such key and its new name.
    """
    for written in flat(tree):
        key = written.replace("+", "")  # `key+` extends a list
        if key in RENAMED:
            raise UserError(f"{place}{key}: this key has been renamed; use {RENAMED[key]}")


def with_current_names(tree: Mapping[Any, Any], prefix: str = "") -> dict[Any, Any]:
    """Return nested or dotted keys written by an earlier version, under their current names.

    Args:
        tree: The keys, which may hold both names; the new one then wins.
        prefix: Full key of the group that contains them, with a trailing dot.
    """
    renamed: dict[Any, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        current = RENAMED[key].removeprefix(prefix) if key in RENAMED else name
        if current != name and current in tree:
            continue
        renamed[current] = with_current_names(value, f"{key}.") if isinstance(value, Mapping) else value
    return renamed
