"""Find a sweep by its path or name, and the directory of its cells."""

from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.files.shipped import find_shipped, nearest_shipped, shipped_names
from sinkablate.sweep.grid import Sweep, read_sweep, unprintable


def open_sweep(file: str, out: str | None) -> tuple[Sweep, Path]:
    """Read a sweep, and return it with the directory of its cells.

    Raises:
        UserError: The file is not a sweep, or the name of the directory is not valid in a list of cells.
    """
    if out == "" or unprintable(out or ""):
        raise UserError(f"out={out!r}: not a valid directory name; use one line of text without control characters")
    path = find_shipped("sweeps", file)
    if path is None:
        near = nearest_shipped("sweeps", file) or f"; shipped sweeps: {', '.join(shipped_names('sweeps'))}"
        raise UserError(f"{file}: no such file{near}")
    sweep = read_sweep(Path(path))
    root = Path("runs") / sweep.name if out is None else Path(out)
    if root.exists() and not root.is_dir():
        raise UserError(f"out={root}: not a directory")
    return sweep, root


def make_root(root: Path) -> None:
    """Create the directory of the cells."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={root}: cannot be created: {error.strerror}") from None
