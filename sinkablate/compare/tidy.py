"""Turn the rows of a table into the cells of a design, with notes on everything that was left out."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np
import polars as pl

from sinkablate.compare.averaging import average_images, average_nested
from sinkablate.compare.rows import read_rows
from sinkablate.compare.runs import LISTED, CellRuns, Levels, Runs, listed
from sinkablate.compare.statistics import Floats, spread
from sinkablate.compare.table import in_order
from sinkablate.errors import UserError


def tidy(
    frame: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    pair_by: str | None,
    nested: str | None = None,
    image: str | None = None,
    diverged: str | None = None,
) -> Runs:
    """Read the columns of a table into runs. The arguments are those of `compare`.

    Raises:
        UserError: A column, value or row is not what it should be.
    """
    if pair_by is None and (nested or image):
        name = "nested" if nested else "image"
        raise UserError(f"{name}={nested or image}: pair_by must name the column that tells runs apart")
    rows, notes = read_rows(frame, metric, factors, pair_by, nested, image, diverged)
    keys = rows.columns[: len(factors)]
    all_levels = tuple(in_order(rows[key].to_list()) for key in keys)
    if prod(map(len, all_levels)) == 1:
        raise UserError(f"factors={','.join(factors)}: one level each, nothing to compare")
    notes += [
        f"{name} has only the level {levels[0]} and is not compared"
        for name, levels in zip(factors, all_levels, strict=True)
        if len(levels) == 1
    ]
    runs = rows.with_columns(pl.col("diverged").any().over([*keys, "seed"]))
    runs = runs.with_columns(pl.when("diverged").then(None).otherwise("value").alias("value"))
    if nested is None:
        runs = runs.with_columns(nested=pl.lit(1))
    else:
        runs, more = average_nested(runs, keys, nested)
        notes += more
    drawn = None
    if image is not None:
        runs, drawn, more = average_images(runs, keys, image)
        notes += more
    design = Runs(tuple(factors), all_levels, _cells(runs, keys, drawn), ())
    return replace(design, notes=(*notes, *_left_out(design, runs, metric, keys, pair_by)))


def _cells(runs: pl.DataFrame, keys: list[str], drawn: dict[Any, Floats] | None) -> dict[Levels, CellRuns]:
    """Return the runs by cell, their seeds in order."""
    position = {seed: index for index, seed in enumerate(in_order(runs["seed"].to_list()))}
    order = runs["seed"].replace_strict(position, return_dtype=pl.Int64).alias("position")
    runs = runs.with_columns(order).sort("position")
    cells = {}
    for cell, group in runs.partition_by(keys, as_dict=True, maintain_order=True).items():
        measured = group.filter(pl.col("value").is_not_null())
        seeds = tuple(measured["seed"].to_list())
        diverged = int(group["diverged"].sum())
        cells[cell] = CellRuns(
            seeds=seeds,
            values=measured["value"].to_numpy(),
            runs=len(group),
            diverged=diverged,
            missing=len(group) - diverged - len(measured),
            nested=int(measured["nested"].max() or 1),  # type: ignore[arg-type]
            drawn=None if drawn is None else np.array([drawn[(*cell, seed)] for seed in seeds]).T,
        )
    return cells


def _left_out(design: Runs, runs: pl.DataFrame, metric: str, keys: list[str], pair_by: str | None) -> list[str]:
    """Return notes about missing values, diverged runs, missing cells, unequal seeds and missing spread."""
    notes = []
    missing = runs.filter(pl.col("value").is_null() & ~pl.col("diverged"))
    if len(missing):
        named = [
            f"{design.name(row[:-1])}{f', {pair_by}={row[-1]}' if pair_by else ''}"
            for row in missing.select([*keys, "seed"]).rows()
        ]
        notes.append(
            f"{metric} is missing or not finite in "
            + ("1 run that is" if len(named) == 1 else f"{len(named)} runs that are")
            + f" not marked as diverged; left out: {listed(named)}"
        )
    if runs["diverged"].any():
        named = [
            f"{cell.diverged} of {cell.runs - cell.missing} with {design.name(levels)}"
            for levels, cell in design.cells.items()
            if cell.diverged
        ]
        notes.append(f"runs that diverged ({listed(named)}) count as an outcome; means are over the other runs")
    holes = prod(map(len, design.levels)) - len(design.cells)
    if holes:
        empty = (design.name(cell) for cell in product(*design.levels) if cell not in design.cells)
        count = "1 cell has" if holes == 1 else f"{holes} cells have"
        notes.append(f"{count} no runs: {listed([*islice(empty, LISTED + 1)], holes)}")
    if pair_by and len({cell.seeds for cell in design.cells.values()}) > 1:
        sizes = [len(cell.seeds) for cell in design.cells.values()]
        common = set.intersection(*(set(cell.seeds) for cell in design.cells.values()))
        notes.append(
            f"cells do not have the same values of {pair_by} ({min(sizes)} to {max(sizes)} each, "
            f"{len(common)} in all of them); a pair needs the value in both cells"
        )
    everything = np.concatenate([cell.values for cell in design.cells.values()])
    if len(everything) > 1 and not spread(everything) > 0:
        notes.append(f"{metric} is constant ({everything[0]:g}), so there is nothing to infer")
    return notes
