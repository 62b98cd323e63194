"""Refuses configurations of runs that would execute code, unless the user trusts them.

A run may have been made by someone else. Its configuration can contain shell commands whose output is read as shards,
and classes that Python imports. `fit` executes them; `validate`, `test`, `predict`, `diagnose`, `intervene` and
`report` refuse such a configuration unless `--trust` is given on the command line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from sinkablate.config import flat
from sinkablate.config.keys import GROUPS
from sinkablate.data.locations import local_path
from sinkablate.errors import UserError
from sinkablate.files.suggestions import first_few
from sinkablate.run.reading import read_yaml

HELP = "Run the commands and import the classes in the configuration of the run; use this only for runs you trust."
LOCATIONS = ("data.source.train", "data.source.val", "data.source.test")
OBJECTS = ("trainer.callbacks", "trainer.plugins", "trainer.logger")
"""Keys whose values are classes."""
NAMES = ("trainer.strategy", "trainer.accelerator", "trainer.profiler")
"""Keys whose values are names or classes."""
PATHS = {*GROUPS, "model.toy.attention", "model.toy.pathway"}
"""Groups of keys; a string in place of a group is the path of another configuration file."""
SETTINGS = ("trust", "config", "weights_only", "trainer.model_registry")
"""Keys that change what is executed, or refer to another file or service."""
MAX_LOCATIONS = 10_000
"""Limit of the shards of a location that are checked; a range such as {0000..9999} counts once."""
VARIABLE = re.compile(r"\$\{oc\.env:\w+(,[^{}:]*)?\}")
RANGE = re.compile(r"\{(\d+)\.\.\d+(\.\.\d+)?\}")


def find_hazards(config: Mapping[str, Any]) -> list[str]:
    """List what a configuration would execute, as `key=value`; empty for almost every configuration.

    Args:
        config: Nested or dotted keys, as in a YAML file.
    """
    hazards = []
    for key, value in flat(config).items():
        name = ".".join(part.rstrip("+") for part in key.split("."))
        if _executes(name, value):
            hazards.append(f"{name}={' '.join(str(value).split())[:80]}")
    return hazards


def _executes(name: str, value: Any) -> bool:
    """Whether a key with this value imports, runs or loads something."""
    if value is None or (isinstance(value, bool) and name != "weights_only"):
        return name in SETTINGS and bool(value)
    if name.endswith("class_path") or "'class_path'" in str(value) or name in SETTINGS:
        return True
    if name in LOCATIONS:
        return runs_command(value)
    if name in NAMES:
        return re.fullmatch(r"[\w-]*", str(value)) is None
    return (name in OBJECTS and bool(value)) or (name in PATHS and isinstance(value, str))


def runs_command(location: Any) -> bool:
    """Whether a location contains the output of a command, or a value that is inserted.

    An environment variable may be the entire location. As a part of a URL it is refused, because its value would be
    sent to that server.
    """
    text = str(location)
    if "${" in text:
        return VARIABLE.fullmatch(text) is None
    shards = list(islice(_shards(text), MAX_LOCATIONS))
    return len(shards) == MAX_LOCATIONS or any(local_path(shard).startswith("pipe:") for shard in shards)


def _shards(location: str) -> Iterator[str]:
    """Yield the shards of a location, one for each numeric range."""
    from braceexpand import braceexpand

    for part in location.split("::"):
        try:
            yield from braceexpand(RANGE.sub(r"\1", part))
        except ValueError:  # reported by `expand_location` when the shards are opened
            yield part


def require_trust(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that would execute something.

    Args:
        config: The configuration.
        where: Name of the file, with which the message starts.

    Raises:
        UserError: The configuration would execute something; the message names the keys and `--trust`.
    """
    hazards = find_hazards(config)
    if hazards:
        raise UserError(
            f"{where}: would execute code: {first_few(hazards, 2, '; ')}; review it, and give --trust if you trust "
            "its source"
        )


def is_trusted(args: Sequence[str]) -> bool:
    """Whether `--trust` is given on the command line, and not only in a configuration."""
    trusted = False
    for word, following in pairwise([*args, "--"]):
        key, equals, value = word.partition("=")
        if key == "--trust":
            answer = value if equals else following
            trusted = answer.lower() == "true" or (not equals and answer.startswith("--"))
    return trusted


def require_trusted_files(args: Sequence[str]) -> None:
    """Refuse configuration files on a command line that would execute something, before they are parsed.

    Args:
        args: Arguments of the command. Keys that they set directly come from the user and are not checked.

    Raises:
        UserError: A file would execute something.
    """
    if is_trusted(args):
        return
    for word, value in pairwise(
        part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])
    ):
        if word in ("--config", "-c") and Path(value).is_file():
            require_trust(read_yaml(Path(value)), value)


def require_trusted_locations(args: Sequence[str], source: Mapping[str, Any]) -> None:
    """Refuse locations that run a command only after references between keys are resolved.

    Args:
        args: Arguments of the command.
        source: `data.source` with its references resolved.

    Raises:
        UserError: A location runs a command, and was not given on the command line.
    """
    own = {word.split("=", 1)[0].removeprefix("--") for word in args if word.startswith("--")}
    if not is_trusted(args) and "data.source" not in own:
        require_trust(
            {key: source.get(key.rsplit(".", 1)[1]) for key in LOCATIONS if key not in own}, "the configuration"
        )
