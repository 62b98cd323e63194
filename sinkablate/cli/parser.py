"""Build command lines from typed functions, with one-line errors and without abbreviated options."""

import json
from collections.abc import Callable, Container, Sequence
from dataclasses import is_dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, auto_cli, get_loader, set_loader

from sinkablate.cli.parser_messages import rewritten
from sinkablate.config import build
from sinkablate.config.renames import with_current_names
from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import refuse_repeated_keys
from sinkablate.run.directory import WRITTEN_BY, version_note


class Parser(ArgumentParser):
    """jsonargparse's parser, whose errors become one `UserError`, however deeply they are wrapped."""

    words: ClassVar[Sequence[str]] = ()
    """The command line that is being parsed, for messages: a nested parser is given only the keys of its group."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a `UserError` instead of printing the usage."""
        raise _mistake_behind(ex) or UserError(rewritten(message, self, self.words)) from ex

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """Add an argument; groups of arguments use this method, too. A number without a decimal point is an int."""
        action = super().add_argument(*args, **kwargs)
        if hasattr(action, "_typehint"):
            action._typehint = int_first(action._typehint)
        return action

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """Parse a command line on which boolean options may have no value."""
        words = spelled_out(self, list(args or ()))
        outer, Parser.words = Parser.words, Parser.words or words
        try:
            return super().parse_args(args and words, *more, **kwargs)
        finally:
            Parser.words = outer

    def instantiate(self, namespace: Any, *args: Any, **kwargs: Any) -> Any:
        """Build the config classes, then the classes that use them, so that an error names the full key."""
        for key, config_class in config_groups(self).items():
            values = namespace.get(key)
            if values is not None and not is_dataclass(values):
                build(config_class, values.as_dict(), key)
        return super().instantiate(namespace, *args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a config file; errors name the file."""
        try:
            return super().parse_path(cfg_path, *args, **kwargs)
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(f"{cfg_path}: {error}{version_note(Path(str(cfg_path)))}") from error


def config_groups(parser: ArgumentParser) -> dict[str, type[Any]]:
    """Return the config class of each group of keys that has one; groups within such a group are part of its class."""
    classes = [(group.dest, group.group_class) for group in parser._action_groups if hasattr(group, "group_class")]
    for action in parser._actions:  # a group that may be null is an action with a union of types
        classes += [(action.dest, member) for member in get_args(getattr(action, "_typehint", None))]
    groups = {str(key): kind for key, kind in classes if isinstance(kind, type) and is_dataclass(kind)}
    return {key: kind for key, kind in groups.items() if not any(key.startswith(f"{other}.") for other in groups)}


def int_first(hint: Any) -> Any:
    """Return the same type with int before float in a union.

    jsonargparse tries the members of a union in order, and `typing` caches unions regardless of their order: whether
    `Optional[Union[int, float]]` parses 1 as 1 or as 1.0 would depend on which library was imported first. To
    Lightning, 1 means one batch and 1.0 means all batches.
    """
    members = get_args(hint)
    if get_origin(hint) not in (Union, UnionType) or not {int, float} <= set(members):
        return hint
    return reduce(or_, sorted(members, key=lambda member: member is not int))


def _load(text: str) -> Any:
    """Load a file or a value as jsonargparse does, but refuse a repeated key.

    In a file that a run of an earlier version wrote, renamed keys get their current names.
    """
    if ":" in text:
        refuse_repeated_keys(text)
    content = _jsonargparse_loader(text)
    return with_current_names(content) if text.startswith(WRITTEN_BY) and isinstance(content, dict) else content


_jsonargparse_loader = get_loader("yaml")
for mode in ("yaml", "omegaconf+"):  # the modes of the parsers here; interpolation happens after loading
    set_loader(mode, _load, (yaml.YAMLError,))


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """Return the `UserError` that caused an exception, if there is one."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def refuse_nulls(parser: ArgumentParser, config: Any) -> None:
    """Refuse null for a key that must have a value; jsonargparse accepts it in a file.

    Args:
        parser: The parser of the keys.
        config: The parsed keys.

    Raises:
        UserError: Names the key and its type.
    """
    for action in parser._actions:
        kind = getattr(action, "_typehint", None) or action.type
        if (
            kind is not None
            and type(None) not in get_args(kind)
            and action.default is not None
            and config.get(action.dest, action.default) is None
        ):
            raise UserError(
                f"{action.dest}=null: must have a value; leave the key out for the default, {action.default}"
            )


def spelled_out(parser: ArgumentParser, args: list[str]) -> list[str]:
    """Replace a boolean `--flag` without a value with `--flag=true`, and hyphens as in `--pair-by` with underscores."""
    options = {
        option: getattr(action, "_typehint", None) for action in parser._actions for option in action.option_strings
    }
    flags = {option for option, hint in options.items() if hint is bool or bool in get_args(hint)}
    args = [_underlined(word, options) for word in args]
    following = [*args, "--"][1:]
    return [
        f"{word}=true" if word in flags and after.startswith("--") else word
        for word, after in zip(args, following, strict=True)
    ]


def _underlined(word: str, options: Container[str]) -> str:
    """Return an option that is spelled with hyphens with underscores, if the parser knows that."""
    name, equals, value = word.partition("=")
    known = f"--{name[2:].replace('-', '_')}"
    return f"{known}{equals}{value}" if name.startswith("--") and name not in options and known in options else word


def gathered(argv: list[str]) -> list[str]:
    """Move all words that belong to no option to the front, as one list: for a command that takes several paths."""
    positions = [
        index
        for index, word in enumerate(argv)
        if not word.startswith("-") and not (index and argv[index - 1].startswith("--") and "=" not in argv[index - 1])
    ]
    words = [argv[index] for index in positions]
    rest = [word for index, word in enumerate(argv) if index not in set(positions)]
    return [json.dumps(words), *rest] if words else rest


def run_function(
    function: Callable[..., Any], command: str, argv: list[str], to_text: Callable[[Any], str] | None = None
) -> int:
    """Run a typed, documented function as a command, and print its result as text unless it is None."""
    result = call(function, command, argv)
    if to_text is not None:
        print(to_text(result))
    return 0


def call(function: Callable[..., Any], command: str, argv: list[str]) -> Any:
    """Call a typed, documented function with the options of a command line, and return its result.

    Args:
        function: The function; its parameters are the options.
        command: Name of the command, for the help.
        argv: The words after the command.
    """
    try:
        return auto_cli(
            function,
            args=argv,
            as_positional=True,
            parser_class=Parser,
            parser_mode="omegaconf+",
            allow_abbrev=False,
            prog=f"sinkablate {command}",
        )
    except (UserError, ValueError) as error:  # jsonargparse wraps the error of an optional group
        mistake = _mistake_behind(error)
        if mistake is None:
            raise
        raise mistake from error
