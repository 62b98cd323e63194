"""A sweep file: a W&B grid, read and expanded here as W&B's agents would be told its cells."""

import itertools
import math
import re
import reprlib
import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sinkablate.errors import UserError
from sinkablate.files.shipped import find_shipped, nearest_shipped
from sinkablate.files.strict_yaml import load_yaml
from sinkablate.run.cells import (
    CONFIG,
    LAUNCH_KEYS,
    PLACEMENT_KEYS,
    SWEEP,
    Cell,
    config_names,
    configs_first,
    parse_words,
    require_sweep_name,
)

ARGS = "${args}"
KNOWN = {"program", "command", "method", "name", "description", "project", "entity", "metric", "parameters"}
"""Top-level keys of a W&B sweep that mean the same here."""
REFUSED = {
    "early_terminate": "every cell is trained to its end, or the cells cannot be compared",
    "run_cap": "every cell of the grid is trained",
}
MOST = 50_000
"""Cells of one sweep: each is a run, and a directory that `status` looks at."""
KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
"""A key as `fit` lists it: another spelling would be another cell of the same run."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, checked.

    Attributes:
        path: The file.
        name: Name of the sweep, of its directory and of the W&B group.
        project: W&B project; None is the default.
        fixed: Arguments of `fit` that all cells share.
        parameters: Swept key to its values, as the words that W&B would pass.
    """

    path: Path
    name: str
    project: str | None
    fixed: tuple[str, ...]
    parameters: dict[str, tuple[str, ...]]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """The full grid, the last parameter running fastest."""
        keys = list(self.parameters)
        rows = itertools.product(*self.parameters.values())
        factors = [dict(zip(keys, row, strict=True)) for row in rows]
        names = config_names(self.parameters[CONFIG]) if CONFIG in self.parameters else {}
        return tuple(
            Cell(tuple(configs_first([*self.fixed, *(f"--{key}={value}" for key, value in some.items())])), some, names)
            for some in factors
        )


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file; what only the parser of `fit` knows is checked elsewhere.

    Raises:
        UserError: It is no grid that can be expanded, or two of its cells are the same run.
    """
    content = _content(path)
    for key in content:
        if key in REFUSED:
            raise UserError(f"{path}: {key}: {REFUSED[key]}")
        if key not in KNOWN:
            raise UserError(f"{path}: unknown key {_short(key)}; there are {', '.join(sorted(KNOWN))}")
    if content.get("method") != "grid":
        raise UserError(f"{path}: method={_short(content.get('method'))}: only the cells of a grid can be listed")
    name, project = require_sweep_name(content.get("name"), f"{path}: name"), content.get("project")
    if not isinstance(project, str | None) or unprintable(project or ""):
        raise UserError(f"{path}: project={_short(project)}: the name of a W&B project is needed")
    sweep = Sweep(path, name, project, _fixed(path, content, name), _parameters(path, content))
    count = math.prod(map(len, sweep.parameters.values()))
    if count > MOST:
        raise UserError(f"{path}: {count:,} cells: a sweep has at most {MOST:,}; split it into several files")
    return sweep


def _content(path: Path) -> dict[str, Any]:
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-01 is a ValueError
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a sweep: a mapping with command, method and parameters is needed")
    return content


def _fixed(path: Path, content: dict[str, Any], name: str) -> tuple[str, ...]:
    """Words of the command between `fit` and `${args}`, less those that are set at each start."""
    command = content.get("command")
    words = command if isinstance(command, list) else []
    for word in words:
        _require_word(f"{path}: command", word)
    words = [str(word) for word in words]
    if "fit" not in words or words[-1] != ARGS or "sinkablate" not in words:
        raise UserError(
            f"{path}: command must be [..., -m, sinkablate, fit, --config, FILE, ..., --sweep, {name}, "
            f"{ARGS}]: configs first, {ARGS} last"
        )
    words = words[words.index("fit") + 1 : -1]
    for before, word in itertools.pairwise(["", *words]):
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise UserError(f"{path}: command: {word!r} belongs to no key")
    given = parse_words(words)
    if (SWEEP, name) not in given:
        raise UserError(f"{path}: command needs --sweep {name}: it names the directories of the cells")
    kept = [
        (key, _found_config(path, value) if key == CONFIG else value) for key, value in given if key not in LAUNCH_KEYS
    ]
    return tuple(f"--{key}={value}" for key, value in kept)


def _parameters(path: Path, content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters: none")
    found: dict[str, tuple[str, ...]] = {}
    for key, spec in given.items():
        where = f"{path}: parameters.{_short(key)}"
        if not isinstance(key, str) or KEY.fullmatch(key) is None:
            raise UserError(f"{where}: not a key of fit; they have the form model.optim.weight_decay")
        if key in PLACEMENT_KEYS:
            raise UserError(f"{where}: says where a run is computed, not what it is: it cannot be swept")
        found[key] = _values(where, spec)
        inner = next((other for other in given if str(other).startswith(f"{key}.")), None)
        if inner is not None:
            raise UserError(f"{where}: sets {inner} too, which is swept by itself: sweep only one of them")
        if key == CONFIG:
            found[key] = tuple(_found_config(path, value) for value in found[key])
    return found


def _values(where: str, spec: Any) -> tuple[str, ...]:
    """The values of a parameter as words."""
    if not isinstance(spec, dict) or not spec.keys() & {"value", "values"}:
        raise UserError(f"{where}: {_instead(spec)}; a grid needs value or values")
    if len(spec) > 1:
        raise UserError(f"{where}: {_short(list(spec))}: only one of value and values")
    values = [spec["value"]] if "value" in spec else spec["values"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: values must be a list that is not empty")
    for value in values:
        _require_word(where, value)
    words = tuple(str(value) for value in values)
    twice = next((word for word in words if words.count(word) > 1), None) if len(set(words)) < len(words) else None
    if twice is not None:
        raise UserError(f"{where}: duplicate cells: the value {twice} is repeated")
    return words


def _require_word(where: str, value: Any) -> None:
    """See that W&B, a shell and a list of cells would all pass a value on as it is written."""
    if value is None:
        raise UserError(f'{where}: write "null": W&B passes a bare null on as None, which is no value')
    if not isinstance(value, str | int | float | date):
        raise UserError(f"{where}: {_short(value)}: W&B passes words; put quotes around it")
    if isinstance(value, str) and unprintable(value):
        raise UserError(f"{where}: {value[:100]!r} holds a control character; a value is one line of text")


def unprintable(text: str) -> bool:
    """True of text with a line break, a tab or any other character that controls instead of showing something."""
    return any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def _short(value: Any) -> str:
    """A value of the file in a message."""
    return reprlib.repr(value).strip("'")


def _instead(spec: Any) -> str:
    """What a parameter has where values should be."""
    if isinstance(spec, dict) and "parameters" in spec:
        return "nested parameters arrive as one argument; use dotted keys"
    if isinstance(spec, dict) and spec.keys() & {"min", "max", "distribution"}:
        return "a range has no list of values"
    return f"got {_short(spec)}"


def _found_config(path: Path, config: str) -> str:
    """Return the path of a config that a sweep names by its path or, if it comes with sinkablate, by its name.

    Raises:
        UserError: There is no such config.
    """
    found = find_shipped("configs", config)
    if found is None:
        near = (
            nearest_shipped("configs", config) or f" in {Path.cwd()}, and no config of this name comes with sinkablate"
        )
        raise UserError(f"{path}: --config {config}: no such file{near}")
    return found
