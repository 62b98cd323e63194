"""What the configuration of a run would execute. Commands that read runs do not execute it unless they are told to.

A run may come from somebody else. Its configuration can name shards as the output of a shell command, and classes
that Python imports. `fit` does what its configuration says; `validate`, `test`, `predict`, `diagnose`, `intervene` and
`report` refuse such a configuration unless `--trust` is given on the command line.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from sinkablate.config import flat
from sinkablate.config.keys import GROUPS
from sinkablate.data.layout import local_path
from sinkablate.errors import UserError
from sinkablate.run.reading import read_yaml

HELP = "Run the commands and import the classes that the configuration of the run names: it is yours."
LOCATIONS = ("data.source.train", "data.source.val", "data.source.test")
OBJECTS = ("trainer.callbacks", "trainer.plugins", "trainer.logger")
"""Keys whose values are classes."""
NAMES = ("trainer.strategy", "trainer.accelerator", "trainer.profiler")
"""Keys that take a name, or a class."""
PATHS = {*GROUPS, "model.toy.attention", "model.toy.pathway"}
"""Groups of keys: text in place of one is the path of another configuration file."""
SETTINGS = ("trust", "config", "weights_only", "trainer.model_registry")
"""Keys that change what is executed, or name another file or service."""
MOST_LOCATIONS = 10_000
"""So many shards of one location are looked at; in the range {0000..9999} one number stands for all."""
VARIABLE = re.compile(r"\$\{oc\.env:\w+(,[^{}:]*)?\}")
RANGE = re.compile(r"\{(\d+)\.\.\d+(\.\.\d+)?\}")


def hazards(config: Mapping[str, Any]) -> list[str]:
    """What a configuration would execute, as `key=value`; empty for almost every configuration.

    Args:
        config: Nested or dotted keys, as a YAML file has them.
    """
    found = []
    for key, value in flat(config).items():
        name = ".".join(part.rstrip("+") for part in key.split("."))
        if _executes(name, value):
            found.append(f"{name}={' '.join(str(value).split())[:80]}")
    return found


def _executes(name: str, value: Any) -> bool:
    """True for a key and value that import, run or load something."""
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
    """True for a location of which a shard is the output of a command, or into which something is inserted.

    One environment variable may be the whole location. Put together with a URL, it would be sent to that server.
    """
    text = str(location)
    if "${" in text:
        return VARIABLE.fullmatch(text) is None
    shards = list(islice(_shards(text), MOST_LOCATIONS))
    return len(shards) == MOST_LOCATIONS or any(local_path(shard).startswith("pipe:") for shard in shards)


def _shards(location: str) -> Iterator[str]:
    """Yield what a location names, one shard of each range of numbers."""
    from braceexpand import braceexpand

    for part in location.split("::"):
        try:
            yield from braceexpand(RANGE.sub(r"\1", part))
        except ValueError:  # `expand` says so, in the place where the shards are opened
            yield part


def require_trust(config: Mapping[str, Any], where: str) -> None:
    """Refuse a configuration that executes something.

    Args:
        config: The configuration.
        where: Begins the message: which file it is.

    Raises:
        UserError: Names the keys, and `--trust`.
    """
    found = hazards(config)
    if found:
        more = f" and {len(found) - 2} more" if len(found) > 2 else ""
        raise UserError(
            f"{where} names what would be executed: {'; '.join(found[:2])}{more}. Look at it, and give "
            "--trust if you trust where it comes from"
        )


def told(args: Sequence[str]) -> bool:
    """True when the command line, and not a configuration, says `--trust`."""
    said = False
    for word, after in pairwise([*args, "--"]):
        key, equals, value = word.partition("=")
        if key == "--trust":
            given = value if equals else after
            said = given.lower() == "true" or (not equals and given.startswith("--"))
    return said


def require_trusted_files(args: Sequence[str]) -> None:
    """Refuse configuration files on a command line that would execute something, before anything of them is parsed.

    Args:
        args: Words behind the name of the command. What they set themselves is the user's own, and not looked at.

    Raises:
        UserError: A file names what would be executed.
    """
    if told(args):
        return
    for word, value in pairwise(
        part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])
    ):
        if word in ("--config", "-c") and Path(value).is_file():
            require_trust(read_yaml(Path(value)), value)


def require_trusted_locations(args: Sequence[str], source: Mapping[str, Any]) -> None:
    """Refuse shards of commands that a configuration put together from several keys.

    Args:
        args: Words behind the name of the command.
        source: `data.source` with its references resolved.

    Raises:
        UserError: A location runs a command, and it was not given on the command line.
    """
    own = {word.split("=", 1)[0].removeprefix("--") for word in args if word.startswith("--")}
    if not told(args) and "data.source" not in own:
        require_trust(
            {key: source.get(key.rsplit(".", 1)[1]) for key in LOCATIONS if key not in own}, "the configuration"
        )
