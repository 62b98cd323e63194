"""Command lines from typed functions, with one-line errors and no abbreviations."""

import json
import re
from collections.abc import Callable, Container
from dataclasses import is_dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, auto_cli, get_loader, set_loader

from sinkablate.config import build
from sinkablate.config.renames import refuse_renamed, with_current_names
from sinkablate.errors import UserError
from sinkablate.files.strict_yaml import refuse_repeated_keys
from sinkablate.files.suggestions import did_you_mean
from sinkablate.run.directory import WRITTEN_BY, version_note


class Parser(ArgumentParser):
    """jsonargparse's parser; what it refuses becomes one `UserError`, whatever exceptions it is wrapped in."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise instead of printing the usage."""
        raise _mistake_behind(ex) or UserError(_unknown_name(self, message) or plain(message)) from ex

    def add_argument(self, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, which gives its groups this method too; a number without a point is an int."""
        action = super().add_argument(*args, **kwargs)
        if hasattr(action, "_typehint"):
            action._typehint = int_first(action._typehint)
        return action

    def parse_args(self, args: Any = None, *more: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; flags may be bare."""
        return super().parse_args(args and spelled_out(self, list(args)), *more, **kwargs)

    def instantiate(self, namespace: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's, after every config class has been checked, so that an error names the full key."""
        for key, config_class in config_groups(self).items():
            values = namespace.get(key)
            if values is not None and not is_dataclass(values):
                build(config_class, values.as_dict(), key)
        return super().instantiate(namespace, *args, **kwargs)

    def parse_path(self, cfg_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As jsonargparse's; an error names the file."""
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
    """The same type, with int as the first choice of a union that also holds float.

    jsonargparse tries the members of a union in their order, and `typing` caches unions without regard to it: whether
    `Optional[Union[int, float]]` reads 1 as 1 or as 1.0 would depend on which library was imported first. To the
    Trainer, 1 is one batch and 1.0 is all of them.
    """
    members = get_args(hint)
    if get_origin(hint) not in (Union, UnionType) or not {int, float} <= set(members):
        return hint
    return reduce(or_, sorted(members, key=lambda member: member is not int))


UNKNOWN = re.compile(r"unrecognized arguments: (?P<words>.+)|does not accept option '(?P<key>[^']+)'", re.DOTALL)


def _unknown_name(parser: ArgumentParser, message: str) -> str | None:
    """What is said of an option or key that does not exist, with the nearest that does; None for other messages."""
    found = UNKNOWN.search(message)
    if found is None:
        return None
    words = (found["words"] or "").split()
    name = found["key"] or next((word.split("=")[0] for word in words if word.startswith("-")), None)
    if name is None:
        return f"{' '.join(words)}: follows no option; every value needs its --KEY in front"
    known = (option.removeprefix("" if name.startswith("-") else "--") for option in _options(parser))
    what = "key" if found["key"] else "option"
    refuse_renamed({name.removeprefix("--"): None})
    return f"{name}: there is no such {what}{did_you_mean(name, known) or '; --help lists them'}"


def _options(parser: ArgumentParser) -> list[str]:
    """The options of a parser and of its subcommands."""
    return [
        option
        for action in parser._actions
        for option in (
            *action.option_strings,
            *(name for sub in (getattr(action, "_name_parser_map", None) or {}).values() for name in _options(sub)),
        )
    ]


UNION = re.compile(
    r'(?:Parser|Config) key "(?P<key>[^"]+)":\s+Does not validate against any of the Union subtypes'
    r"\s+Subtypes: \[(?P<types>.*)\]\s+Errors:.*Given value: (?P<value>.*)",
    re.DOTALL,
)


def plain(message: str) -> str:
    """What jsonargparse says of a value that is none of several types, in a few words."""
    found = UNION.search(message)
    if found is None:
        return message
    types = re.sub(r"typing\.Literal\[(.*?)\]|<class '([\w.]+)'>", lambda kind: kind[1] or kind[2], found["types"])
    names = types.replace("NoneType", "null").replace("'", "")
    return f"{found['key']}={found['value'].strip()} is none of: {names}"


def _load(text: str) -> Any:
    """What jsonargparse's own loader makes of a file or a word, unless a key is in it twice.

    In a file that a run wrote, keys of earlier versions have the names of today.
    """
    if ":" in text:
        refuse_repeated_keys(text)
    content = _lenient(text)
    return with_current_names(content) if text.startswith(WRITTEN_BY) and isinstance(content, dict) else content


_lenient = get_loader("yaml")
for mode in ("yaml", "omegaconf+"):  # the modes of our parsers; interpolation comes after loading
    set_loader(mode, _load, (yaml.YAMLError,))


def _mistake_behind(error: BaseException | None) -> UserError | None:
    """The `UserError` that led to an exception, if one did."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__ or error.__context__
    return error


def refuse_nulls(parser: ArgumentParser, config: Any) -> None:
    """Refuse null for a key that has a value always; jsonargparse lets a file say it.

    Args:
        parser: What parsed it.
        config: What was parsed.

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
            raise UserError(f"{action.dest}=null: the key has no such value; leave it out for {action.default}")


def spelled_out(parser: ArgumentParser, args: list[str]) -> list[str]:
    """A bare `--flag` of a yes-or-no key means `--flag=true`, and `--pair-by` means `--pair_by`."""
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
    """An option spelled with hyphens, as it is known."""
    name, equals, value = word.partition("=")
    known = f"--{name[2:].replace('-', '_')}"
    return f"{known}{equals}{value}" if name.startswith("--") and name not in options and known in options else word


def gathered(argv: list[str]) -> list[str]:
    """Words that belong to no option, wherever they stand, as one list in front: for a verb that takes several."""
    places = [
        place
        for place, word in enumerate(argv)
        if not word.startswith("-") and not (place and argv[place - 1].startswith("--") and "=" not in argv[place - 1])
    ]
    words = [argv[place] for place in places]
    rest = [word for place, word in enumerate(argv) if place not in set(places)]
    return [json.dumps(words), *rest] if words else rest


def run_function(
    function: Callable[..., Any], verb: str, argv: list[str], tell: Callable[[Any], str] | None = None
) -> int:
    """Run a typed, documented function as a verb, and print what `tell` makes of its result."""
    result = call(function, verb, argv)
    if tell is not None:
        print(tell(result))
    return 0


def call(function: Callable[..., Any], verb: str, argv: list[str]) -> Any:
    """What a typed, documented function returns to a command line.

    Args:
        function: What a verb does.
        verb: Its name, for the help.
        argv: The words behind it.
    """
    try:
        return auto_cli(
            function,
            args=argv,
            as_positional=True,
            parser_class=Parser,
            allow_abbrev=False,
            prog=f"python -m sinkablate {verb}",
        )
    except (UserError, ValueError) as error:  # jsonargparse wraps what an optional group refuses
        mistake = _mistake_behind(error)
        if mistake is None:
            raise
        raise mistake from error
