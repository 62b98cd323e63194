"""Everything that `fit` would refuse in a sweep, before anything starts."""

import contextlib
import hashlib
import io
import json
from pathlib import Path

import yaml

from sinkablate import __version__
from sinkablate.cells import CONFIG, SEED, Cell, arguments
from sinkablate.errors import UserError
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import State, state_of

CHECKED, CONFIGS = "checked.txt", "configs.json"
"""In the directory of a sweep: a hash of what was checked last, so that it is checked once, and one of each config."""


def check(sweep: Sweep, root: Path) -> None:
    """Parse cells as `fit` would, every combination of factors with one seed and every seed once.

    Raises:
        UserError: `fit` refuses one of them, or a config of cells that have begun says something else now.
    """
    configs = _unchanged_configs(sweep, root)
    stamp = _hash(sweep)
    with contextlib.suppress(OSError):
        if (root / CHECKED).read_text() == stamp:
            return
    from sinkablate.cli import run_trainer  # seconds

    for cell in _representatives(sweep.cells):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
                run_trainer("fit", [*cell.words, "--print_config"])
        except UserError as error:
            raise UserError(f"{sweep.path}: {cell.label}: {error}") from error
    if root.is_dir():
        (root / CHECKED).write_text(stamp)
        (root / CONFIGS).write_text(json.dumps(configs, indent=1) + "\n")


def _unchanged_configs(sweep: Sweep, root: Path) -> dict[str, str]:
    """What every config says, as a hash: a cell is known by its arguments, and what these name must stay as it was.

    Raises:
        UserError: A config of cells that have begun says something else now.
    """
    path = root / CONFIGS
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    named = _configs(sweep)
    now = {config: _said_by(Path(config)) for config in sorted(set().union(*named.values()))}
    for config in (config for config, said in now.items() if known.get(config, said) != said):
        if any(config in named[cell.id] and state_of(root / cell.id) is not State.TODO for cell in sweep.cells):
            raise UserError(f"{config} says something else now than when cells of {root} began with it: undo the "
                            "change, or give the sweep another name")
    return known | now


def _configs(sweep: Sweep) -> dict[str, set[str]]:
    """The configs that each cell names, by its id."""
    return {cell.id: {value for key, value in arguments(cell.words) if key == CONFIG} for cell in sweep.cells}


def _said_by(config: Path) -> str:
    """A hash of a config's keys and values, whatever its layout and comments."""
    try:
        content = json.dumps(yaml.safe_load(config.read_text()), sort_keys=True, default=str)
    except (OSError, yaml.YAMLError, UnicodeDecodeError):  # which the parser will name
        content = ""
    return hashlib.sha256(content.encode()).hexdigest()


def _representatives(cells: tuple[Cell, ...]) -> list[Cell]:
    """Cells that show all that can be wrong: seeds make no difference to each other."""
    found: dict[object, Cell] = {}
    for cell in cells:
        others = tuple((key, value) for key, value in cell.factors.items() if key != SEED)
        found.setdefault(others, cell)
        found.setdefault(cell.factors.get(SEED), cell)
    return list({cell.id: cell for cell in found.values()}.values())


def _hash(sweep: Sweep) -> str:
    """Of all cells, of the files they name, and of this package's version."""
    parts = [__version__, *(word for cell in sweep.cells for word in cell.words)]
    parts += [Path(config).read_text() for config in sorted(set().union(*_configs(sweep).values()))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
