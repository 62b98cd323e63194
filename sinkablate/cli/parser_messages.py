"""Rewrite the parser's messages as `key=value: what is wrong; what to do`."""

import re
from collections.abc import Callable, Sequence

from jsonargparse import ArgumentParser

from sinkablate.config.renames import refuse_renamed
from sinkablate.files.suggestions import did_you_mean

TYPES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list in brackets, such as [1,2]",
    "tuple": "a list in brackets, such as [1,2]",
    "tuple with 2 elements": "a list of 2 values",
    "dict": "a mapping",
}
UNKNOWN = re.compile(
    r"unrecognized arguments: (?P<words>.+)|does not accept option '(?P<key>[^']+)'"
    r"|Option '(?P<nested>[^']+)' is not accepted",
    re.DOTALL,
)
UNION = re.compile(
    r'(?:Parser|Config) key "(?P<key>[^"]+)":\s+(?:- Expected a path but .*? invalid\s+- )?'
    r"Does not validate against any of the Union subtypes"
    r"\s+Subtypes: \[(?P<types>.*)\]\s+Errors:.*Given value: (?P<value>.*)",
    re.DOTALL,
)
EXPECTED = re.compile(
    r'(?:Parser|Config) key "(?P<key>[^"]+)":\s+Expected a (?P<type>.+)\. Got value: (?P<value>.*)', re.DOTALL
)
REQUIRED = re.compile(r"the following arguments are required: (?P<names>.+)")
NO_VALUE = re.compile(r"argument (?:-\w/)?--(?P<key>[\w.+]+)(?:/\S+)?: expected (?:one|at least one) argument")
NO_FILE = re.compile(r'Parser key "(?P<key>[^"]+)": Unable to load config [\'"](?P<path>[^\'"]+)')
NO_MAPPING = re.compile(r"Unexpected config: ?(?P<content>.*)", re.DOTALL)


def rewritten(message: str, parser: ArgumentParser, words: Sequence[str]) -> str:
    """Rewrite a message of jsonargparse or argparse; a message of an unknown form stays as it is.

    Args:
        message: The message.
        parser: The parser that reports it.
        words: The command line, which shows the full key of an option when the message has only its last part.
    """
    for pattern, rewrite in REWRITES:
        if match := pattern.search(message):
            return rewrite(match, parser, words)
    return message


def _unknown(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    """Name an unknown option or key, and the nearest known one."""
    extra = (match["words"] or "").split()
    name = match["key"] or next((word.split("=")[0] for word in extra if word.startswith("-")), None)
    known = _options(parser)
    if match["nested"]:
        name = f"--{_full_key(match['nested'], words)}"
        group = name.removesuffix(match["nested"])
        known = [group + option.removeprefix("--") for option in known]
    if name is None:
        return f"{' '.join(extra)}: does not belong to an option; write --KEY before every value"
    if any(f"--{action.dest}" == name and not action.option_strings for action in parser._actions):
        return f"{name}: not an option; give {name[2:].upper()} by its position, without --{name[2:]}"
    if match["key"]:
        known = [option.removeprefix("--") for option in known]
    kind = "key" if match["key"] else "option"
    refuse_renamed({name.removeprefix("--"): None})
    return f"{name}: no such {kind}{did_you_mean(name, known) or f'; --help lists the {kind}s'}"


def _of_several_types(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    types = re.sub(r"typing\.Literal\[(.*?)\]|<class '([\w.]+)'>", lambda kind: kind[1] or kind[2], match["types"])
    names = re.sub(r"\b[a-z_]\w*\.", "", types.replace("NoneType", "null").replace("'", ""))
    names = ", ".join(dict.fromkeys(names.split(", ")))
    key, value = _full_key(match["key"], words), match["value"].strip()
    if part := re.fullmatch(r"NestedArg\(key='(.*)', val='(.*)'\)", value):
        key, value = f"{key}.{part[1]}", part[2]
    return f"{key}={value}: must be one of: {names}"


def _of_one_type(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    value = match["value"].strip()
    start = f"{_full_key(match['key'], words)}={value}"
    if choices := re.fullmatch(r"typing\.Literal\[(.*)\]", match["type"]):
        names = [name.strip(" '\"") for name in choices[1].split(",")]
        return f"{start}: must be one of {', '.join(names)}{did_you_mean(value, names)}"
    kind = match["type"].removeprefix("<class '").removesuffix("'>")
    return f"{start}: must be {TYPES.get(kind, kind)}"


def _required(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    options = _options(parser)
    names = [name.strip() for name in match["names"].split(",")]
    missing = [f"--{name} {name.upper()}" if f"--{name}" in options else name.upper() for name in names]
    return f"{' '.join(missing)}: required, but not given; `{parser.prog} --help` describes every option"


def _without_value(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    key = match["key"]
    return f"{key}: the value is missing; write --{key} {key.rpartition('.')[2].upper()}"


def _without_keys(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    content = " ".join(match["content"].split())[:60]
    return f"contains no keys ({content or 'it is empty'}); a config is a YAML mapping, such as `variant: baseline`"


def _not_a_config(match: re.Match[str], parser: ArgumentParser, words: Sequence[str]) -> str:
    return f"{_full_key(match['key'], words)}={match['path']}: not a YAML file with keys of this group"


REWRITES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], ArgumentParser, Sequence[str]], str]], ...] = (
    (UNKNOWN, _unknown),
    (UNION, _of_several_types),
    (EXPECTED, _of_one_type),
    (REQUIRED, _required),
    (NO_VALUE, _without_value),
    (NO_FILE, _not_a_config),
    (NO_MAPPING, _without_keys),
)


def _full_key(key: str, words: Sequence[str]) -> str:
    """Return the key as it appears on the command line, where the message may have only its last part."""
    keys = (word.removeprefix("--").partition("=")[0] for word in words if word.startswith("--"))
    return next((full for full in keys if full == key or full.endswith(f".{key}")), key)


def _options(parser: ArgumentParser) -> list[str]:
    """Return the options of a parser and of its subcommands."""
    return [
        option
        for action in parser._actions
        for option in (
            *action.option_strings,
            *(name for sub in (getattr(action, "_name_parser_map", None) or {}).values() for name in _options(sub)),
        )
    ]
