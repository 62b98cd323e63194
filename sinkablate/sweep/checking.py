"""Check a sweep before anything starts: refuse whatever `fit` would refuse in one of its cells."""

import contextlib
import hashlib
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sinkablate import __version__
from sinkablate.errors import UserError
from sinkablate.files.ownership import refuse_foreign
from sinkablate.files.writing import write_json, write_text
from sinkablate.process import streams
from sinkablate.run.cells import CONFIG, parse_words
from sinkablate.sweep.confounding import confounded
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import State, read_notes, state_of

if TYPE_CHECKING:
    from sinkablate.sweep.parsing import CellParser

PROGRESS_SECONDS = 0.5
"""Seconds between two progress messages."""
CHECKED, CONFIGS = "checked.txt", "configs.json"
"""Files in the directory of a sweep: a hash of what was checked last, and a hash of every config."""


def check(sweep: Sweep, root: Path, *, allow_confounded: bool = False) -> None:
    """Parse the cells as `fit` would: every combination of the other factors with one seed, and every seed once.

    Args:
        sweep: The sweep.
        root: Directory of its cells.
        allow_confounded: Accept cells that differ in more than what the parameters name.

    Raises:
        UserError: `fit` refuses a cell, two cells are the same run, a config has changed since its cells started, or
            the cells are confounded.
    """
    configs = _unchanged_configs(sweep, root)
    stamp = _hash(sweep, allow_confounded)
    with contextlib.suppress(OSError, ValueError):
        if (root / CHECKED).read_text(encoding="utf-8") == stamp:
            return
    with streams.status("loading PyTorch and Lightning ..."):
        from sinkablate.sweep.parsing import CellParser

    with streams.status("checking the cells ..."):
        parser = CellParser()
        _parse(sweep, parser)
    order = {cell.id: position for position, cell in enumerate(sweep.cells)}
    rows = sorted(parser.parsed, key=lambda row: order[row[0].id])
    if not allow_confounded and (reason := confounded(rows)) is not None:
        raise UserError(f"{sweep.path}: {'parameters.config: ' if CONFIG in sweep.parameters else ''}{reason}")
    if root.is_dir():
        write_json(root / CONFIGS, configs)
        write_text(root / CHECKED, stamp)


def _refuse_foreign(root: Path, known: dict[str, str]) -> None:
    """Refuse a directory that is not a sweep's but holds files under the names of the two files above.

    Args:
        root: The directory of the sweep.
        known: The content of `configs.json` in it: in a sweep, a hash of every config.
    """
    hashes = all(re.fullmatch("[0-9a-f]{64}", str(content)) for content in known.values())
    if not (hashes and (root / CONFIGS).exists()):
        refuse_foreign(root, (CONFIGS, CHECKED), key="out", what=f"the directory of a sweep ({CONFIGS})")


def _parse(sweep: Sweep, parser: "CellParser") -> None:
    """Check that `fit` accepts every cell and that no two cells are the same run."""
    shown = time.monotonic()
    for number, (cell, error) in enumerate(parser.cells(sweep), start=1):
        if error is not None:
            raise UserError(f"{sweep.path}: {cell.label}: {error}") from error
        if time.monotonic() > shown + PROGRESS_SECONDS:
            shown = time.monotonic()
            streams.show_status(f"checking {len(sweep.cells):,} cells: {number:,} combinations done ...")
    same = parser.same_values(sweep)
    if same is not None:
        key, first, second = same
        raise UserError(f"{sweep.path}: parameters.{key}: duplicate cells: {first} and {second} are the same value")


def _unchanged_configs(sweep: Sweep, root: Path) -> dict[str, str]:
    """Return a hash of every config. A cell is identified by its arguments, so the configs they name must not change.

    Raises:
        UserError: A config has changed since one of its cells started, or the directory belongs to something else.
    """
    path = root / CONFIGS
    known = read_notes(
        path,
        "it holds hashes of the configs from when the cells started; remove it if the configs have not changed since",
    )
    _refuse_foreign(root, known)
    configs = _configs(sweep)
    hashes = {config: _content_hash(Path(config)) for config in sorted(set().union(*configs.values()))}
    for config in (config for config, content in hashes.items() if known.get(config, content) != content):
        if any(config in configs[cell.id] and state_of(root / cell.id) is not State.TODO for cell in sweep.cells):
            raise UserError(
                f"{config}: has changed since cells of {root} started with it; undo the change or give the sweep "
                "another name"
            )
    return known | hashes


def _configs(sweep: Sweep) -> dict[str, set[str]]:
    """Return the configs that each cell names, by the id of the cell."""
    return {cell.id: {value for key, value in parse_words(cell.words) if key == CONFIG} for cell in sweep.cells}


def _content_hash(config: Path) -> str:
    """Return a hash of the keys and values of a config, regardless of its layout and comments."""
    try:
        content = json.dumps(yaml.safe_load(config.read_text(encoding="utf-8")), sort_keys=True, default=str)
    except (OSError, yaml.YAMLError, ValueError, RecursionError):  # the parser reports it
        content = ""
    return hashlib.sha256(content.encode()).hexdigest()


def _hash(sweep: Sweep, allow_confounded: bool) -> str:
    """Return a hash of all cells, of the configs they name, of the version of this package, and of the option."""
    parts = [__version__, str(allow_confounded), *(word for cell in sweep.cells for word in cell.words)]
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape"))
    for config in sorted(set().union(*_configs(sweep).values())):
        digest.update(Path(config).read_bytes())
    return digest.hexdigest()
