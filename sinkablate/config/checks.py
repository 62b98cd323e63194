"""How config classes are built from plain values, and how they refuse what makes no sense."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from sinkablate.errors import UserError


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless the condition holds."""
    if not condition:
        raise UserError(message)


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
    return cls(**{field.name: build(field.type, values[field.name])  # type: ignore[arg-type]
                  if is_dataclass(field.type) else values[field.name]
                  for field in fields(cls) if field.name in values})
