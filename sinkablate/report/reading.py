"""Read the files of a run or a diagnosis. Nothing is computed here."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.config import flat
from sinkablate.errors import UserError, first_line, printable
from sinkablate.figures.token_maps import StoredMaps, load_token_maps
from sinkablate.report.run import Run
from sinkablate.run.directory import CONFIG, DIAGNOSIS, INTERVENTION
from sinkablate.run.evaluations import evaluation_numbers
from sinkablate.run.identity import results_id, run_id
from sinkablate.run.reading import READ_ERRORS, read_arrays, read_csv, read_json, read_metrics, read_parquet, read_yaml
from sinkablate.run.schema import CHECKS, check_grid, check_limits, check_summary, check_table

STEPS = 24
"""Number of measurements from which the formation of single heads is read: first, last, and evenly between."""
CELL = re.compile(r"[0-9a-f]{12}")
"""Matches the directory names of sweep cells, which are hashes and mean nothing to a person."""
NEEDS = {
    "heads": ("block", "head", "images", "token_type", "median_mass"),
    "blocks": ("block", "mass_cls", "norm_cls_median"),
    "sensitivity": ("rule", "steps", "routed_min", "events", "nop"),
}
"""Columns that each table must have."""
HISTOGRAMS = "norm_histograms"
"""Name of the table of histograms of token norms."""
EDIT_COLUMNS = ("block", "head", "edit", "class", "images", "effect", "effect_low", "effect_high")
"""Columns of the table of edited heads that a report shows."""
TOY_COLUMNS = ("loss", "loss_edited")
"""Further columns of that table if the model is a toy."""


def read_run(path: Path) -> Run:
    """Read everything that a report shows about one directory.

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
    heads = _table(steps[-1], "heads") if steps else None
    table_of_blocks = _table(blocks[-1], "blocks") if blocks else None
    last = int(steps[-1].stem.split("_")[1]) if steps else None
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
        evaluation=evaluation_numbers(path),
        heads=heads,
        blocks=table_of_blocks,
        norm_histograms=_norm_histograms(_measured(path / "diagnostics" / HISTOGRAMS)[-1:]),
        formation=_formation(steps, _followed_rules(heads, table_of_blocks)),
        tokens=_toy_tokens(config),
        run_id=run_id(path),
        results_id=results_id(path),
    )


def _diagnosis(path: Path) -> Run:
    identity = read_json(path / DIAGNOSIS) or {}
    summary = read_json(path / "summary.json")
    check_summary(path / DIAGNOSIS, identity)
    check_summary(path / "summary.json", summary or {})
    tables: dict[str, Any] = {
        name: _table(path / f"{name}.parquet", name) if (path / f"{name}.parquet").exists() else None for name in NEEDS
    }
    stripes = path / "figures" / "stripes.csv"
    mass, dominant, names, registers = _per_image(path / "per_image.npz", tables["heads"])
    combined = identity | (summary or {})
    return Run(
        name=printable(path.resolve().name),
        path=path,
        kind="diagnosis",
        variant=printable(str(identity.get("model", path.name))),
        seed="",
        finished=summary is not None,
        step=identity.get("step"),
        summary=combined,
        norm_histograms=_norm_histograms([path / f"{HISTOGRAMS}.parquet"]),
        stored_maps=maps if (maps := stripes.with_suffix(".npz")).exists() else None,
        columns=_stripes(stripes, combined) if stripes.exists() else None,
        token_maps=_token_maps(path / "token_maps.npz"),
        mass=mass,
        dominant=dominant,
        image_names=names,
        tokens=_token_counts(combined, registers),
        edits=_edits(path.parent),
        edits_rule=str((read_json(path.parent / INTERVENTION) or {}).get("rule") or ""),
        run_id=str(combined.get("run_id") or ""),
        **tables,
    )


def _measured(folder: Path) -> list[Path]:
    """Tables of the steps at which a run was measured, in order."""
    return sorted(path for path in folder.glob("step_*.parquet") if re.fullmatch(r"step_\d{1,15}", path.stem))


def _table(path: Path, name: str) -> pl.DataFrame:
    """A table of heads, blocks or sensitivity."""
    table = read_parquet(path, NEEDS[name])
    CHECKS[name](path, table)
    return table


def _norm_histograms(paths: Sequence[Path]) -> pl.DataFrame | None:
    """The first of the files that exists, a table of histograms of token norms."""
    columns = ("block", "token_type", "low", "high", "count")
    return next((read_parquet(path, columns, list(columns)) for path in paths if path.exists()), None)


def _edits(folder: Path) -> pl.DataFrame | None:
    """The table of edited heads, if the folder belongs to an intervention; its diagnosis is in a folder inside it."""
    path = folder / "heads.parquet"
    if not (folder / INTERVENTION).is_file() or not path.is_file():
        return None
    try:
        of_toy = [name for name in TOY_COLUMNS if name in pl.read_parquet_schema(path)]
        table = pl.read_parquet(path, columns=[*EDIT_COLUMNS, *of_toy]).filter(pl.col("effect").is_not_nan())
    except (*READ_ERRORS, pl.exceptions.PanicException) as error:
        raise UserError(f"{path}: damaged, or not a table written by sinkablate ({first_line(error)})") from None
    return table if len(table) else None


def _stripes(path: Path, summary: dict[str, Any]) -> pl.DataFrame:
    """Mean attention by column for a few heads, all with the same number of columns."""
    table = read_csv(path)
    check_table(path, table, ("block", "head", "column", "mean_attention"))
    check_grid(path, table.with_columns(head=pl.struct("block", "head").rank("dense")), ("head", "column"))
    shortest = 0 if "texts" in summary else summary.get("num_tokens") or 0  # the first text may be shorter than others
    if table["column"].n_unique() < shortest:
        raise UserError(f"{path}: damaged (it has fewer columns than the model has tokens)")
    return table


def _token_maps(path: Path) -> StoredMaps | None:
    """The norms of the tokens over the first images."""
    if not path.exists():
        return None
    try:
        return load_token_maps(path)
    except (*READ_ERRORS, KeyError, BadZipFile) as error:
        raise UserError(f"{path}: damaged, or not written by sinkablate ({first_line(error)})") from None


def _followed_rules(heads: pl.DataFrame | None, blocks: pl.DataFrame | None) -> list[str]:
    """The rules that are followed over training: those whose events the table of blocks counts, or else all."""
    names = [] if heads is None else [name.removesuffix("_frequency") for name in heads.columns if "_frequency" in name]
    return [name for name in names if blocks is None or f"events_{name}" in blocks.columns]


def _formation(steps: list[Path], rules: list[str]) -> pl.DataFrame | None:
    """Event frequencies of every head at up to `STEPS` measurements."""
    if not steps:
        return None
    chosen = sorted({round(index) for index in np.linspace(0, len(steps) - 1, min(STEPS, len(steps))).tolist()})
    columns = ["step", "block", "head", *(f"{rule}_frequency" for rule in rules)]
    table = pl.concat([read_parquet(steps[index], (), columns) for index in chosen], how="vertical_relaxed")
    check_grid(steps[0].parent, table, ("step", "block", "head"))
    return table


def _per_image(
    path: Path, heads: pl.DataFrame | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.int8] | None, tuple[str, ...], int]:
    """Mass on the dominant column and its type, names of the images, number of registers."""
    if not path.exists():
        return None, None, (), 0
    mass, dominant, names, registers = read_arrays(path, ("mass", "sink_type", "image_names", "num_register_tokens"))
    if (
        mass.ndim != 3
        or mass.dtype.kind != "f"
        or dominant.shape != mass.shape
        or dominant.dtype.kind != "i"
        or names.shape != mass.shape[:1]
        or names.dtype.kind != "U"
        or registers.ndim
        or registers.dtype.kind != "i"
        or not mass.size
        or (heads is not None and mass[0].size != len(heads))
    ):
        raise UserError(f"{path}: damaged (its arrays do not match the tables)")
    return mass, dominant, tuple(names.tolist()), int(registers)


def _token_counts(summary: dict[str, Any], registers: int) -> dict[str, int]:
    """Number of tokens of each type that a diagnosed model has."""
    tokens, prefix = int(summary.get("num_tokens") or 0), int(summary.get("num_prefix_tokens") or 0)
    counts = {"cls": prefix - registers, "register": registers, "patch": tokens - prefix}
    return {kind: count for kind, count in counts.items() if count > 0} if tokens else {}


def _toy_tokens(config: dict[str, Any]) -> dict[str, int]:
    """The same for a toy, from its configuration; empty for other tasks."""
    if config.get("task") != "toy":
        return {}
    prefix = int(config.get("model.toy.registers") or 0) + (config.get("model.toy.task") == "nop")
    null = int(config.get("model.toy.task") == "nop")
    counts = {"register": prefix, "patch": int(config.get("model.toy.tokens") or 32) - null}
    return {kind: count for kind, count in counts.items() if count > 0}


def _last_values(metrics: pl.DataFrame | None) -> dict[str, Any]:
    """The last value of every metric."""
    if metrics is None:
        return {}
    values = {name: column.drop_nulls() for name, column in metrics.to_dict().items() if name != "step"}
    return {name: column.last() for name, column in values.items() if len(column)}
