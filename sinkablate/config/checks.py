"""Building config classes from plain values, and the checks they make."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from math import isfinite
from typing import Any

from sinkablate.errors import UserError


class ConfigError(UserError):
    """A value that a config class refuses.

    The message begins with a key relative to the class: `sink=zero needs score=softmax, got relu`. A class does not
    know where it is used, so whoever builds it adds the rest of the key (`keys_below`).

    Args:
        message: The message.
        remedies: Parts of the message that are settings to use instead, such as `pretrained=false`.
    """

    def __init__(self, message: str, remedies: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.remedies = remedies


@contextmanager
def keys_below(key: str) -> Iterator[None]:
    """Prefix the keys of config errors raised in the block, so that a message names the full key.

    Remedies become options, such as `--model.backbone.pretrained=false`.

    Args:
        key: Full key of the group, such as `model.backbone`; an empty one adds nothing.
    """
    try:
        yield
    except ConfigError as error:
        if not key:
            raise
        message = str(error)
        for remedy in error.remedies:
            message = message.replace(remedy, f"--{key}.{remedy}")
        raise ConfigError(f"{key}.{message}") from error


def build(cls: type[Any], values: Mapping[str, Any], key: str = "") -> Any:
    """Build a config class, including nested ones, from plain values; each class validates itself.

    A missing value keeps its default, because files from older versions lack keys that were added later.

    Args:
        cls: The config class.
        values: Field to value, nested for nested classes.
        key: Full key of this group, for error messages.

    Raises:
        ConfigError: A value is refused; the message begins with its full key.
    """
    with keys_below(key):
        return cls(
            **{
                field.name: build(field.type, values[field.name], field.name)  # type: ignore[arg-type]
                if is_dataclass(field.type)
                else values[field.name]
                for field in fields(cls)
                if field.name in values
            }
        )


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def with_tuples(tree: Any) -> Any:
    """Turn the lists of a YAML or JSON file or a checkpoint into the tuples of a config class."""
    if isinstance(tree, Mapping):
        return {key: with_tuples(value) for key, value in tree.items()}
    return tuple(tree) if isinstance(tree, list) else tree


def flat(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys that start with a prefix; sequences become lists."""
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = list(value) if isinstance(value, (list, tuple)) else value
    return values


def leaves(tree: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (key, value) for every value in nested mappings and sequences; items of a sequence share its key."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value, key)
    else:
        yield key, tree


def require_finite(tree: Any) -> None:
    """Refuse NaN, infinity and numbers that do not fit into a 32-bit float or a 64-bit integer.

    A range check alone may accept NaN, because every comparison with NaN is false.

    Args:
        tree: An instance of a config class, whose nested config classes check themselves, or nested mappings.
    """
    if is_dataclass(tree):
        tree = {field.name: getattr(tree, field.name) for field in fields(tree)}
    for name, value in leaves(tree):
        if isinstance(value, float):
            require(isfinite(value) and abs(value) < 2.0**127, f"{name} must be a finite number, got {value}")
        elif isinstance(value, int):
            require(abs(value) < 2**63, f"{name} must fit into 64 bits, got {value}")


def require_nonempty(tree: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse empty strings, which would silently mean the default: most come from shell variables that are not set.

    Args:
        tree: Nested mappings.
        allowed: Full keys that may be empty.
    """
    for name, value in leaves(tree):
        require(value != "" or name in allowed, f"{name} is empty; leave it out, or give null for the default")


def require_at_most(config: Any, limits: Mapping[str, float]) -> None:
    """Refuse numbers so large that they must be a mistake and would exhaust memory or time.

    Args:
        config: An instance of a config class.
        limits: Field to its largest value; a field that is None passes.
    """
    for name, largest in limits.items():
        value = getattr(config, name)
        require(value is None or value <= largest, f"{name} must be at most {largest:,}, got {value}")


def block_indices(numbers: Sequence[int], depth: int, key: str) -> list[int]:
    """Return distinct block indices in ascending order; negative numbers count from the last block.

    Args:
        numbers: The block indices.
        depth: Number of blocks of the model.
        key: Name of the list in the message.

    Raises:
        ConfigError: A block is outside the model.
    """
    for number in numbers:
        require(-depth <= number < depth, f"{key}: {number} is outside the model's {depth} blocks")
    return sorted({number % depth for number in numbers})


Needs = Mapping[str, tuple[str, Collection[Any] | None]]
"""Field -> the field that decides whether it has an effect, and the values of that field for which it does; None means
every value except those of `OFF`."""
OFF = (None, 0, "none")
"""Values that leave out a mechanism."""


def idle_choice(needs: Needs, field: str, values: Mapping[str, Any]) -> str | None:
    """Return the choice that leaves a field without effect, as `axis=value`; None if the field has an effect.

    Args:
        needs: What the fields of a config class need.
        field: One of its fields.
        values: Field to value.
    """
    if field not in needs:
        return None
    axis, accepted = needs[field]
    value = values.get(axis)
    used = value not in OFF if accepted is None else value in accepted
    return idle_choice(needs, axis, values) or (None if used else f"{axis}={value}")


def refuse_idle(config: Any) -> None:
    """Refuse a value that another choice leaves without effect, because it would silently be ignored.

    Args:
        config: An instance of a config class, whose `NEEDS` say which choices decide.
    """
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    for field in fields(config):
        choice = idle_choice(config.NEEDS, field.name, values)
        value = values[field.name]
        shown = str(value).lower() if isinstance(value, bool) else value
        require(choice is None or value == field.default, f"{field.name}={shown} has no effect with {choice}")
