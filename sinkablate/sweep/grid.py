"""Read a sweep file, a W&B grid, and expand it into the same cells that W&B's agents would run."""

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

from sinkablate.errors import UserError, shortened
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
"""Top-level keys of a W&B sweep that have the same meaning here."""
REFUSED = {
    "early_terminate": "not supported: cells can only be compared if each is trained to its end",
    "run_cap": "not supported: every cell of the grid is trained",
}
MOST = 50_000
"""Maximum number of cells of a sweep: each is a run with a directory, and `status` reads them all."""
KEY = re.compile(r"[A-Za-z_]\w*(\.\w+)*")
"""Spelling of a key in the help of `fit`: another spelling would give the same run another identity."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file that has been checked.

    Attributes:
        path: The file.
        name: Name of the sweep, of its directory and of the W&B group.
        project: W&B project; None for the default.
        fixed: Arguments of `fit` that all cells share.
        parameters: Swept key -> its values, as the words that W&B would pass.
    """

    path: Path
    name: str
    project: str | None
    fixed: tuple[str, ...]
    parameters: dict[str, tuple[str, ...]]

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All cells of the grid; the last parameter varies fastest."""
        keys = list(self.parameters)
        rows = itertools.product(*self.parameters.values())
        factors = [dict(zip(keys, row, strict=True)) for row in rows]
        names = config_names(self.parameters[CONFIG]) if CONFIG in self.parameters else {}
        return tuple(
            Cell(tuple(configs_first([*self.fixed, *(f"--{key}={value}" for key, value in row.items())])), row, names)
            for row in factors
        )


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep file. Keys and values of `fit` are checked elsewhere.

    Raises:
        UserError: The file is not a grid that can be expanded, or two of its cells are the same run.
    """
    content = _content(path)
    for key in content:
        if key in REFUSED:
            raise UserError(f"{path}: {key}: {REFUSED[key]}")
        if key not in KNOWN:
            raise UserError(f"{path}: {_short(key)}: no such key; choose from {', '.join(sorted(KNOWN))}")
    if content.get("method") != "grid":
        raise UserError(f"{path}: method={_short(content.get('method'))}: only grids are supported")
    name, project = require_sweep_name(content.get("name"), f"{path}: name"), content.get("project")
    if not isinstance(project, str | None) or unprintable(project or ""):
        raise UserError(f"{path}: project={_short(project)}: must be the name of a W&B project")
    sweep = Sweep(path, name, project, _fixed(path, content, name), _parameters(path, content))
    count = math.prod(map(len, sweep.parameters.values()))
    if count > MOST:
        raise UserError(f"{path}: {count:,} cells; a sweep can have at most {MOST:,}, so split it into several files")
    return sweep


def _content(path: Path) -> dict[str, Any]:
    """Return the keys of a sweep file."""
    try:
        content = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-01 raises a ValueError
        raise UserError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a sweep; it must be a mapping with command, method and parameters")
    return content


def _fixed(path: Path, content: dict[str, Any], name: str) -> tuple[str, ...]:
    """Return the words of the command between `fit` and `${args}`, without those that are set at each start."""
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
            raise UserError(f"{path}: command: {word!r} does not belong to a key")
    given = parse_words(words)
    if (SWEEP, name) not in given:
        raise UserError(f"{path}: command: must contain --sweep {name}, which determines the directories of the cells")
    kept = [
        (key, _found_config(path, value) if key == CONFIG else value) for key, value in given if key not in LAUNCH_KEYS
    ]
    return tuple(f"--{key}={value}" for key, value in kept)


def _parameters(path: Path, content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the swept keys with their values as words."""
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters: must name at least one key")
    parameters: dict[str, tuple[str, ...]] = {}
    for key, spec in given.items():
        is_key = isinstance(key, str) and KEY.fullmatch(key) is not None
        where = f"{path}: parameters.{shortened(key) if is_key else _short(key)}"
        if not is_key:
            raise UserError(f"{where}: not a key of fit, such as model.optim.weight_decay")
        if key in PLACEMENT_KEYS:
            raise UserError(f"{where}: cannot be swept; it determines where or how a run is computed, not its result")
        parameters[key] = _values(where, spec)
        inner = next((other for other in given if str(other).startswith(f"{key}.")), None)
        if inner is not None:
            raise UserError(f"{where}: also sets {inner}, which is swept separately; sweep only one of them")
        if key == CONFIG:
            parameters[key] = tuple(_found_config(path, value) for value in parameters[key])
    return parameters


def _values(where: str, spec: Any) -> tuple[str, ...]:
    """Return the values of a parameter as words."""
    if not isinstance(spec, dict) or not spec.keys() & {"value", "values"}:
        raise UserError(f"{where}: {_instead(spec)}; a grid requires value or values")
    if len(spec) > 1:
        raise UserError(f"{where}: {_short(list(spec))}: must have exactly one of value and values")
    values = [spec["value"]] if "value" in spec else spec["values"]
    if not isinstance(values, list) or not values:
        raise UserError(f"{where}: values: must be a non-empty list")
    for value in values:
        _require_word(where, value)
    words = tuple(str(value) for value in values)
    repeated = next((word for word in words if words.count(word) > 1), None) if len(set(words)) < len(words) else None
    if repeated is not None:
        raise UserError(f"{where}: duplicate cells: the value {repeated} is repeated")
    return words


def _require_word(where: str, value: Any) -> None:
    """Check that W&B, a shell and a list of cells all pass a value on unchanged."""
    if value is None:
        raise UserError(f'{where}: null: write "null" with quotes; W&B passes a bare null on as None')
    if not isinstance(value, str | int | float | date):
        raise UserError(f"{where}: {_short(value)}: must be a word, as W&B passes it to fit; put quotes around it")
    if isinstance(value, str) and unprintable(value):
        raise UserError(f"{where}: {value[:100]!r}: contains a control character; a value must be one line of text")


def unprintable(text: str) -> bool:
    """Return whether text contains a line break, a tab, or another control character."""
    return any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in text)


def _short(value: Any) -> str:
    """Shorten a value of the file for a message."""
    return reprlib.repr(value).strip("'")


def _instead(spec: Any) -> str:
    """Describe what a parameter has instead of values."""
    if isinstance(spec, dict) and "parameters" in spec:
        return "nested parameters reach fit as one argument, use dotted keys"
    if isinstance(spec, dict) and spec.keys() & {"min", "max", "distribution"}:
        return "a range is not a list of values"
    return f"got {_short(spec)}"


def _found_config(path: Path, config: str) -> str:
    """Return the path of a config that a sweep names by its path or, if it comes with sinkablate, by its name.

    Raises:
        UserError: There is no such config.
    """
    shipped = find_shipped("configs", config)
    if shipped is None:
        near = (
            nearest_shipped("configs", config) or f" in {Path.cwd()}, and no config of this name comes with sinkablate"
        )
        raise UserError(f"{path}: --config {config}: no such file{near}")
    return shipped
