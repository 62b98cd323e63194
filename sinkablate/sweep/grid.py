"""A sweep file: a W&B grid, read and expanded here as W&B's agents would be told its cells."""

import itertools
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sinkablate.cells import CONFIG, LAUNCH, WHERE, Cell, arguments
from sinkablate.errors import UserError

ARGS = "${args}"
KNOWN = {"program", "command", "method", "name", "description", "project", "entity", "metric", "parameters"}
"""Top-level keys of a W&B sweep that mean the same here."""
REFUSED = {
    "early_terminate": "every cell is trained to its end, or the cells cannot be compared",
    "run_cap": "every cell of the grid is trained",
}


class UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As PyYAML's."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


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
        return tuple(Cell((*self.fixed, *(f"--{key}={value}" for key, value in some.items())), some)
                     for some in factors)


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
            raise UserError(f"{path}: unknown key {key}; there are {', '.join(sorted(KNOWN))}")
    if content.get("method") != "grid":
        raise UserError(f"{path}: method={content.get('method')}: only a grid has cells that can be listed")
    name = content.get("name")
    if not isinstance(name, str) or not name.replace("-", "_").isidentifier():
        raise UserError(f"{path}: name={name!r} names the directory: a word of letters, digits, - and _ is needed")
    sweep = Sweep(path, name, content.get("project"), _fixed(path, content, name), _parameters(path, content))
    seen: dict[str, Cell] = {}
    for cell in sweep.cells:
        if cell.id in seen:
            raise UserError(f"{path}: duplicate cells: {cell.label} and {seen[cell.id].label} are the same run")
        seen[cell.id] = cell
    return sweep


def _content(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(), UniqueKeys)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or 'not a text file'}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a sweep: a mapping with command, method and parameters is needed")
    return content


def _fixed(path: Path, content: dict[str, Any], name: str) -> tuple[str, ...]:
    """Words of the command between `fit` and `${args}`, less those that are set at each start."""
    command = content.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    if "fit" not in words or words[-1] != ARGS or "sinkablate" not in words:
        raise UserError(f"{path}: command must be [..., -m, sinkablate, fit, --config, FILE, ..., --sweep, {name}, "
                        f"{ARGS}]: configs first, {ARGS} last")
    given = arguments(words[words.index("fit") + 1:-1])
    if ("sweep", name) not in given:
        raise UserError(f"{path}: command needs --sweep {name}: it names the directories of the cells")
    for key, value in given:
        if key == CONFIG:
            _require_config(path, value)
    return tuple(f"--{key}={value}" for key, value in given if key not in LAUNCH)


def _parameters(path: Path, content: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise UserError(f"{path}: parameters: none")
    found = {}
    for key, spec in given.items():
        where = f"{path}: parameters.{key}"
        if not isinstance(spec, dict) or not spec.keys() & {"value", "values"}:
            raise UserError(f"{where}: {_instead(spec)}; a grid needs value or values")
        if len(spec) > 1:
            raise UserError(f"{where}: {', '.join(map(str, spec))}: only one of value and values")
        if key in WHERE:
            raise UserError(f"{where}: says where a run is computed, not what it is: it cannot be swept")
        values = [spec["value"]] if "value" in spec else spec["values"]
        if not isinstance(values, list) or not values:
            raise UserError(f"{where}: values must be a list that is not empty")
        for value in values:
            if value is None:
                raise UserError(f'{where}: write "null": W&B passes a bare null on as None, which is no value')
            if isinstance(value, dict | list):
                raise UserError(f"{where}: {value}: W&B passes words; put quotes around it")
            if key == CONFIG:
                _require_config(path, str(value))
        found[str(key)] = tuple(str(value) for value in values)
    return found


def _instead(spec: Any) -> str:
    """What a parameter has where values should be."""
    if isinstance(spec, dict) and "parameters" in spec:
        return "nested parameters arrive as one argument; use dotted keys"
    if isinstance(spec, dict) and spec.keys() & {"min", "max", "distribution"}:
        return "a range has no list of values"
    return f"got {spec!r}"


def _require_config(path: Path, config: str) -> None:
    if not Path(config).is_file():
        raise UserError(f"{path}: --config {config}: no such file (seen from {Path.cwd()})")
