"""Everything that `fit` would refuse in a sweep, before anything starts."""

import contextlib
import hashlib
import io
from pathlib import Path

from sinkablate import __version__
from sinkablate.cells import CONFIG, SEED, Cell, arguments
from sinkablate.errors import UserError
from sinkablate.sweep.grid import Sweep

CHECKED = "checked.txt"
"""In the directory of a sweep: a hash of what was checked last, so that it is checked once."""


def check(sweep: Sweep, root: Path) -> None:
    """Parse cells as `fit` would, every combination of factors with one seed and every seed once.

    Raises:
        UserError: `fit` refuses one of them.
    """
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
    configs = {value for cell in sweep.cells for key, value in arguments(cell.words) if key == CONFIG}
    parts += [Path(config).read_text() for config in sorted(configs)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
