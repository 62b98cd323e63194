"""How config classes are built from plain values, and how they refuse what makes no sense."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from sinkablate.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless the condition holds."""
    if not condition:
        raise UserError(message)


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys below a prefix, sequences as lists."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = list(value) if isinstance(value, (list, tuple)) else value
    return found


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of every value in nested mappings and sequences; an item of a sequence has the key of it."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value, key)
    else:
        yield key, tree


def require_finite(tree: Any, key: str = "") -> None:
    """Refuse NaN, infinity and numbers that no 32-bit float or 64-bit integer holds.

    Every comparison with NaN is false, so that a check of a range alone may let it through.

    Args:
        tree: An instance of a config class, whose nested config classes check themselves, or nested mappings.
        key: Its full key.
    """
    if is_dataclass(tree):
        tree = {field.name: getattr(tree, field.name) for field in fields(tree)}
    for name, value in leaves(tree, key):
        if isinstance(value, float):
            require(isfinite(value) and abs(value) < 2.0**127, f"{name} must be a finite number, got {value}")
        elif isinstance(value, int):
            require(abs(value) < 2**63, f"{name} must fit into 64 bits, got {value}")


def require_nonempty(tree: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse empty words, which would silently stand for the default: most are variables that are not set.

    Args:
        tree: Nested mappings.
        allowed: Full keys that may be empty.
    """
    for name, value in leaves(tree):
        require(value != "" or name in allowed, f"{name} is empty; leave it out, or give null for the default")


def require_at_most(config: Any, key: str, limits: Mapping[str, float]) -> None:
    """Refuse numbers that cannot be meant and would take all memory, or all day, to build.

    Args:
        config: An instance of a config class.
        key: Its full key.
        limits: Field to its largest value; a field that is None passes.
    """
    for name, most in limits.items():
        value = getattr(config, name)
        require(value is None or value <= most, f"{key}.{name} must be at most {most:,}, got {value}")


def refuse_idle(config: Any, key: str, choices: Mapping[str, tuple[bool, str]]) -> None:
    """Refuse a value that a choice leaves without effect: it would be silently ignored.

    Args:
        config: An instance of a config class.
        key: Its full key.
        choices: Field -> (whether it has an effect, what decided that, as `axis=value`).
    """
    for field in fields(config):
        used, choice = choices.get(field.name, (True, ""))
        value = getattr(config, field.name)
        require(used or value == field.default, f"{key}.{field.name}={value} has no effect with {key}.{choice}")


def build(cls: type[Any], values: Mapping[str, Any]) -> Any:
    """An instance of a config class, nested ones included, from plain values; it validates itself.

    A value that is not there keeps its default: what an older version stored knows no newer key.
    """
    return cls(
        **{
            field.name: build(field.type, values[field.name])  # type: ignore[arg-type]
            if is_dataclass(field.type)
            else values[field.name]
            for field in fields(cls)
            if field.name in values
        }
    )
