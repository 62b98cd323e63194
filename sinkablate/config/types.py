"""Checks of values against type hints, for calls from Python; on the command line the parser makes these checks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache, wraps
from inspect import signature
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from sinkablate.config.checks import require
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list

P = ParamSpec("P")
R = TypeVar("R")

_NUMBERS: dict[Any, type] = {int: Integral, float: Real}
"""NumPy's numbers are accepted as well as Python's."""
_LISTS = (tuple, Sequence, Iterable)
_NAMES = {type(None): "None", Callable: "a function", Mapping: "a dict"}
_SHOWN = 60
"""Largest number of characters of a value that a message shows."""


def require_type(value: Any, hint: Any, key: str) -> None:
    """Refuse a value that a type hint does not allow.

    A `Literal` accepts only its names, `float` accepts whole numbers as well, no number type accepts a Boolean, and a
    tuple accepts a list as well. The text of an `Annotated` hint describes in the message what is expected.

    Args:
        value: The value.
        hint: A type, a union, a `Literal`, or a collection of these.
        key: Name of the argument or field, with which the message begins.

    Raises:
        ConfigError: The value has the wrong type, or a name is not among the choices.
    """
    if any(_fits(value, member) for member in _members(hint)):
        return
    shown = repr(value)
    plain = len(shown) <= _SHOWN and "\n" not in shown and not shown.startswith("<")
    given = f"{key}={shown}" if plain else f"{key} is a {type(value).__name__}"
    require(False, f"{given}: expected {_name(hint)}")


def require_types(config: Any) -> None:
    """Check the type of every field of an instance of a config class.

    Raises:
        ConfigError: A value does not have the type of its field.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        require_type(getattr(config, field.name), hints[field.name], field.name)


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a public function so that wrong arguments raise a `UserError` that names the argument.

    Arguments are compared with the type hints of the function, see `require_type`.
    """
    parameters = signature(function)

    @cache
    def hints() -> dict[str, Any]:
        return get_type_hints(function, include_extras=True)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            arguments = parameters.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise UserError(f"{function.__name__}: {error}; see help({function.__name__})") from None
        for name, value in arguments.items():
            require_type(value, hints().get(name, Any), name)
        return function(*args, **kwargs)

    return call


def known_fields(config: type[R]) -> type[R]:
    """Decorate a config class so that a field that it does not have raises a `ConfigError` that names it."""
    init, names = config.__init__, [field.name for field in fields(config)]  # type: ignore[arg-type, misc]

    @wraps(init)
    def call(self: R, **values: Any) -> None:
        for name in values:
            require(name in names, f"{name}: {config.__name__} has no such field{did_you_mean_or_list(name, names)}")
        init(self, **values)

    config.__init__ = call  # type: ignore[misc, assignment]
    return config


def _members(hint: Any) -> list[Any]:
    """Return the members of a union and the values of a `Literal`, flattened."""
    origin = get_origin(hint)
    if origin is Annotated:
        return _members(get_args(hint)[0])
    if origin in (Union, UnionType):
        return [inner for member in get_args(hint) for inner in _members(member)]
    return list(get_args(hint)) if origin is Literal else [hint]


def _fits(value: Any, member: Any) -> bool:
    """Return whether a value fits one member of a union; the items of a list or tuple must fit, too."""
    kind = get_origin(member) or member
    if kind is Any:
        return True
    if isinstance(member, str) or isinstance(value, str):
        return value == member if isinstance(member, str) else kind is str
    if isinstance(value, bool):
        return kind is bool
    if not isinstance(value, Sequence if kind is tuple else _NUMBERS.get(kind, kind)):
        return False
    if kind not in _LISTS or not isinstance(value, list | tuple):
        return True
    return all(any(_fits(item, inner) for inner in _members(get_args(member)[0])) for item in value)


def _name(hint: Any) -> str:
    """Return the words that a message uses for a hint."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind is Annotated:
        return str(inner[1])
    if kind in (Union, UnionType, Literal):
        return " or ".join(map(_name, inner))
    if kind in _LISTS:
        return f"a list of {_name(inner[0])}"
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))
