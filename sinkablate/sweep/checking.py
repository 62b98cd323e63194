"""Everything that `fit` would refuse in a sweep, before anything starts."""

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.files.writing import write_json, write_text
from sinkablate.process import streams
from sinkablate.run.cells import CONFIG, parse_words
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import State, read_notes, state_of

if TYPE_CHECKING:
    from sinkablate.sweep.parsing import CellParser

EVERY = 0.5
"""Seconds between two lines that say how far the check is."""
CHECKED, CONFIGS = "checked.txt", "configs.json"
"""In the directory of a sweep: a hash of what was checked last, so that it is checked once, and one of each config."""


def check(sweep: Sweep, root: Path) -> None:
    """Parse cells as `fit` would, every combination of factors with one seed and every seed once.

    Raises:
        UserError: `fit` refuses one of them, two of them are the same run, or a config of cells that have begun says
            something else now.
    """
    configs = _unchanged_configs(sweep, root)
    stamp = _hash(sweep)
    with contextlib.suppress(OSError, ValueError):
        if (root / CHECKED).read_text(encoding="utf-8") == stamp:
            return
    with streams.status("loading PyTorch and Lightning ..."):
        from sinkablate.sweep.parsing import CellParser

    with streams.status("checking the cells ..."):
        _parse(sweep, CellParser())
    if root.is_dir():
        write_text(root / CHECKED, stamp)
        write_json(root / CONFIGS, configs)


def _parse(sweep: Sweep, parser: "CellParser") -> None:
    """See that `fit` takes every cell, and that no two are the same run."""
    shown = time.monotonic()
    for number, (cell, error) in enumerate(parser.cells(sweep), start=1):
        if error is not None:
            raise UserError(f"{sweep.path}: {cell.label}: {error}") from error
        if time.monotonic() > shown + EVERY:
            shown = time.monotonic()
            streams.show_status(f"checking the {len(sweep.cells):,} cells: {number:,} combinations so far ...")
    same = parser.same_values(sweep)
    if same is not None:
        key, one, other = same
        raise UserError(f"{sweep.path}: parameters.{key}: duplicate cells: {one} and {other} are the same value")


def _unchanged_configs(sweep: Sweep, root: Path) -> dict[str, str]:
    """What every config says, as a hash: a cell is known by its arguments, and what these name must stay as it was.

    Raises:
        UserError: A config of cells that have started has changed.
    """
    path = root / CONFIGS
    known = read_notes(
        path,
        "it holds what the configs of this sweep said when its cells began; remove it if they have not changed since",
    )
    named = _configs(sweep)
    now = {config: _said_by(Path(config)) for config in sorted(set().union(*named.values()))}
    for config in (config for config, said in now.items() if known.get(config, said) != said):
        if any(config in named[cell.id] and state_of(root / cell.id) is not State.TODO for cell in sweep.cells):
            raise UserError(
                f"{config} has changed since cells of {root} started with it: undo the "
                "change, or give the sweep another name"
            )
    return known | now


def _configs(sweep: Sweep) -> dict[str, set[str]]:
    """The configs that each cell names, by its id."""
    return {cell.id: {value for key, value in parse_words(cell.words) if key == CONFIG} for cell in sweep.cells}


def _said_by(config: Path) -> str:
    """A hash of a config's keys and values, whatever its layout and comments."""
    try:
        content = json.dumps(yaml.safe_load(config.read_text(encoding="utf-8")), sort_keys=True, default=str)
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # which the parser will name
        content = ""
    return hashlib.sha256(content.encode()).hexdigest()


def _hash(sweep: Sweep) -> str:
    """Of all cells, of the files they name, and of this package's version."""
    parts = [__version__, *(word for cell in sweep.cells for word in cell.words)]
    said = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape"))
    for config in sorted(set().union(*_configs(sweep).values())):
        said.update(Path(config).read_bytes())
    return said.hexdigest()
