"""What the directory of a run or of a diagnosis holds, read into one value; nothing is computed here."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.config import flat
from sinkablate.diagnostics.rules import ADAPTIVE_RULE, DEFAULT_RULE
from sinkablate.errors import UserError, printable
from sinkablate.run.directory import CONFIG, DIAGNOSIS, INTERVENTION, diverged
from sinkablate.run.reading import read_arrays, read_csv, read_json, read_metrics, read_parquet, read_yaml
from sinkablate.run.schema import CHECKS, LIMITS, check_grid, check_limits, check_summary, check_table

DEPTH = 3
"""So many levels below a given directory are searched for runs."""
FEW = 10
"""So many runs are read and drawn without a word."""
STEPS = 24
"""Measurements at which the formation of single heads is read: the first, the last, and some evenly between."""
CELL = re.compile(r"[0-9a-f]{12}")
"""The directory of a sweep's cell, whose name tells a reader nothing."""
NEEDS = {
    "heads": (
        "block",
        "head",
        "images",
        "token_type",
        "median_mass",
        f"{DEFAULT_RULE}_frequency",
        f"{ADAPTIVE_RULE}_frequency",
    ),
    "blocks": ("block", "mass_patch", "norm_patch_median"),
    "sensitivity": ("rule", "steps", "routed_min", "events", "nop"),
}
"""Columns without which a table is none of ours."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model: a run of `fit`, or what `diagnose` measured; None where the directory does not hold a table."""

    name: str
    path: Path
    kind: Literal["run", "diagnosis"]
    variant: str
    seed: str
    finished: bool
    step: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    """Dotted key to value, of a run."""
    summary: dict[str, Any] = field(default_factory=dict)
    """Content of summary.json; of an unfinished run the last value of every metric."""
    heads: pl.DataFrame | None = None
    """One row per block and head, of the last measurement."""
    blocks: pl.DataFrame | None = None
    sensitivity: pl.DataFrame | None = None
    metrics: pl.DataFrame | None = None
    """Rows of metrics.csv, by step."""
    formation: pl.DataFrame | None = None
    """Event frequency per step, block and head, at up to `STEPS` measurements."""
    columns: pl.DataFrame | None = None
    """Mean attention each column of a few heads receives on one image (`figures/stripes.csv` of a diagnosis)."""
    mass: NDArray[np.float32] | None = None
    """Mass on the dominant column (images, blocks, heads), of a diagnosis, with `image_names`."""
    image_names: tuple[str, ...] = ()
    registers: int = 0
    """Register tokens, of a diagnosis."""

    @property
    def rules(self) -> list[str]:
        """Names of the rules whose labels were counted."""
        columns = [] if self.heads is None else self.heads.columns
        return [name.removesuffix("_frequency") for name in columns if name.endswith("_frequency")]

    @property
    def formation_rules(self) -> list[str]:
        """Names of the rules whose frequency `formation` follows."""
        columns = [] if self.formation is None else self.formation.columns
        return [name.removesuffix("_frequency") for name in columns if name.endswith("_frequency")]

    @property
    def diverged(self) -> bool:
        """The loss became NaN or infinite, and the run was stopped for it."""
        return diverged(self.path)

    @property
    def limits(self) -> dict[str, float]:
        """The numbers of `LIMITS` by which the run's events were labeled."""
        of_diagnosis = self.summary.get("thresholds") or {}
        said = {
            name: (self.config.get(f"diagnostics.thresholds.{name}"), of_diagnosis.get(name), default)
            for name, default in LIMITS.items()
        }
        return {name: float(next(value for value in values if value is not None)) for name, values in said.items()}


def read_runs(given: Sequence[str]) -> tuple[list[Run], list[str]]:
    """The runs and diagnoses that the given directories are or hold, each once, under names that tell them apart.

    A damaged one is left out; the second result has a line for each, which names the file.

    They stay in the order given; those of one folder are sorted by variant, seed and name. More than a few take long
    to read and to draw, of which a line on stderr tells.

    Raises:
        UserError: A directory is missing or holds neither, or all runs are damaged.
    """
    first_in: dict[Path, str] = {}
    for name in given:
        for path in _found(name):
            first_in.setdefault(path.resolve(), name)
    if len(first_in) > FEW:
        print(f"reading {len(first_in)} runs …", file=sys.stderr, flush=True)
    shown = {Path(name).resolve(): Path(name) for name in given}
    groups: dict[str, list[Run]] = {name: [] for name in given}
    faults = []
    for path, origin in first_in.items():
        try:
            groups[origin].append(read_run(shown.get(path, path)))
        except UserError as error:
            faults.append(str(error))
    if len(faults) == len(first_in):
        raise UserError(faults[0] if len(faults) == 1 else f"none of {len(faults)} runs can be read: {faults[0]}")
    runs = [run for group in groups.values() for run in sorted(group, key=_by_variant_and_seed)]
    return [replace(run, name=name) for run, name in zip(runs, _told_apart(runs), strict=True)], [
        f"Left out, damaged: {fault}" for fault in faults
    ]


def _by_variant_and_seed(run: Run) -> tuple[str, int, str, str]:
    """A key to sort by; seeds are numbers, and a diagnosis, which has none, comes before them."""
    return run.variant, int(run.seed) if run.seed.isdecimal() else -1, run.name, str(run.path)


def _found(name: str) -> list[Path]:
    """Directories of runs at or below a directory, in the order of their names."""
    root = Path(name)
    if not name or not root.is_dir():
        raise UserError(f"runs: {name or 'an empty name'} is not a directory")
    found = list(_below(root, DEPTH, named=True))
    if not found:
        raise UserError(f"runs: {root} is neither a run ({CONFIG}) nor a diagnosis ({DIAGNOSIS}), and holds none")
    return found


def _below(root: Path, depth: int, *, named: bool = False) -> Iterable[Path]:
    """The same; an intervention, whose diagnosis is that of a run too, is entered only where it was `named`."""
    if (root / CONFIG).is_file() or (root / DIAGNOSIS).is_file():
        yield root
    elif depth and (named or not (root / INTERVENTION).exists()):
        for path in sorted(_entries(root)):
            if path.is_dir() and not path.name.startswith("."):
                yield from _below(path, depth - 1)


def _entries(folder: Path) -> list[Path]:
    """What a folder holds; one that cannot be read holds nothing that can be shown."""
    try:
        return list(folder.iterdir())
    except OSError as error:
        print(f"{printable(str(folder))} cannot be read: {error.strerror}", file=sys.stderr)
        return []


def _told_apart(runs: Sequence[Run]) -> list[str]:
    """Names of runs, with as many folders before them as it takes for each to be the only one."""
    names = [run.name for run in runs]
    for parents in range(1, max((len(run.path.resolve().parts) for run in runs), default=0)):
        twice = {name for name, count in Counter(names).items() if count > 1}
        if not twice:
            break
        names = [
            "/".join((*run.path.resolve().parts[-parents - 1 : -1], run.name)) if name in twice else name
            for run, name in zip(runs, names, strict=True)
        ]
    return names


def read_run(path: Path) -> Run:
    """Everything a report shows of one directory.

    Raises:
        UserError: A file is damaged; the message names it.
    """
    return _fit(path) if (path / CONFIG).is_file() else _diagnosis(path)


def _fit(path: Path) -> Run:
    config = flat(read_yaml(path / CONFIG))
    metrics = read_metrics(path / "metrics.csv")
    summary = read_json(path / "summary.json")
    check_limits(path / CONFIG, "diagnostics.thresholds.", config)
    check_summary(path / "summary.json", summary or {})
    steps, blocks = _measured(path / "diagnostics"), _measured(path / "diagnostics" / "blocks")
    last = int(steps[-1].stem.split("_")[1]) if steps else None
    last_blocks = _table(blocks[-1], "blocks") if blocks else None
    variant = printable(str(config.get("variant", path.name)))
    seed = printable(str(config.get("seed_everything", "")))
    return Run(
        name=printable(f"{variant}-s{seed}" if CELL.fullmatch(path.name) else path.resolve().name),
        path=path,
        kind="run",
        variant=variant,
        seed=seed,
        finished=(path / "DONE").exists(),
        step=last,
        config=config,
        metrics=metrics,
        summary=_last_values(metrics) if summary is None else summary,
        heads=_table(steps[-1], "heads") if steps else None,
        blocks=last_blocks,
        formation=_formation(steps, _handoff_rules(last_blocks)),
    )


def _diagnosis(path: Path) -> Run:
    known = read_json(path / DIAGNOSIS) or {}
    summary = read_json(path / "summary.json")
    check_summary(path / DIAGNOSIS, known)
    check_summary(path / "summary.json", summary or {})
    tables: dict[str, Any] = {
        name: _table(path / f"{name}.parquet", name) if (path / f"{name}.parquet").exists() else None for name in NEEDS
    }
    stripes = path / "figures" / "stripes.csv"
    mass, names, registers = _per_image(path / "per_image.npz", tables["heads"])
    return Run(
        name=printable(path.resolve().name),
        path=path,
        kind="diagnosis",
        variant=printable(str(known.get("model", path.name))),
        seed="",
        finished=summary is not None,
        step=known.get("step"),
        summary=known | (summary or {}),
        columns=_stripes(stripes, known | (summary or {})) if stripes.exists() else None,
        mass=mass,
        image_names=names,
        registers=registers,
        **tables,
    )


def _measured(folder: Path) -> list[Path]:
    """Tables of the steps at which a run was measured, in their order."""
    return sorted(path for path in folder.glob("step_*.parquet") if re.fullmatch(r"step_\d{1,15}", path.stem))


def _table(path: Path, name: str) -> pl.DataFrame:
    """A table of heads, blocks or sensitivity."""
    table = read_parquet(path, NEEDS[name])
    CHECKS[name](path, table)
    return table


def _stripes(path: Path, summary: dict[str, Any]) -> pl.DataFrame:
    """Columns of the attention maps of a few heads, all of one width."""
    table = read_csv(path)
    check_table(path, table, ("block", "head", "column", "mean_attention"))
    check_grid(path, table.with_columns(head=pl.struct("block", "head").rank("dense")), ("head", "column"))
    if table["column"].n_unique() < (summary.get("num_tokens") or 0):
        raise UserError(f"{path}: damaged, it has fewer columns than the model has tokens")
    return table


def _handoff_rules(blocks: pl.DataFrame | None) -> list[str]:
    """Names of the rules whose events a table of blocks counts by token type."""
    found = [re.fullmatch("events_(.+)_patch", name) for name in ([] if blocks is None else blocks.columns)]
    return [match[1] for match in found if match]


def _formation(steps: list[Path], handoff_rules: list[str]) -> pl.DataFrame | None:
    if not steps:
        return None
    places = sorted({round(place) for place in np.linspace(0, len(steps) - 1, min(STEPS, len(steps))).tolist()})
    columns = ["step", "block", "head", *(f"{rule}_frequency" for rule in handoff_rules)]
    whole = pl.concat([read_parquet(steps[place], (), columns) for place in places], how="vertical_relaxed")
    check_grid(steps[0].parent, whole, ("step", "block", "head"))
    return whole


def _per_image(path: Path, heads: pl.DataFrame | None) -> tuple[NDArray[np.float32] | None, tuple[str, ...], int]:
    """Mass on the dominant column, names of the images, number of registers."""
    if not path.exists():
        return None, (), 0
    mass, names, registers = read_arrays(path, ("mass", "image_names", "num_register_tokens"))
    if (
        mass.ndim != 3
        or mass.dtype.kind != "f"
        or names.shape != mass.shape[:1]
        or names.dtype.kind != "U"
        or registers.ndim
        or registers.dtype.kind != "i"
        or not mass.size
        or (heads is not None and mass[0].size != len(heads))
    ):
        raise UserError(f"{path}: damaged, its arrays do not fit the tables")
    return mass, tuple(names.tolist()), int(registers)


def _last_values(metrics: pl.DataFrame | None) -> dict[str, Any]:
    if metrics is None:
        return {}
    last = {
        name: column.drop_nulls().last() if column.drop_nulls().len() else None
        for name, column in metrics.to_dict().items()
    }
    return {name: value for name, value in last.items() if value is not None and name != "step"}
