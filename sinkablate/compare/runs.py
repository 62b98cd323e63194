"""From rows to runs: the cells of a design, each with its seeds and values, and what was left out of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import polars as pl

from sinkablate.compare.statistics import Floats, moments, resample_images, spread
from sinkablate.compare.table import in_order, levels, numbers, require_columns, truths
from sinkablate.errors import UserError

MANY = 5
"""Of a longer list, a note shows so many."""
Levels = tuple[str, ...]


@dataclass(frozen=True)
class CellRuns:
    """The runs of one cell: `values` (n,) of the `seeds` that have one, in the seeds' order.

    `drawn` (draws, n) holds the same over resampled images, if the metric is of images.
    """

    seeds: tuple[str, ...]
    values: Floats
    runs: int
    diverged: int
    missing: int
    nested: int
    drawn: Floats | None = None

    @cached_property
    def moments(self) -> tuple[np.float64, np.float64, np.float64]:
        """Mean, standard error and degrees of freedom of the mean."""
        mean, error, freedom = moments(self.values)
        return np.float64(mean), np.float64(error), np.float64(freedom)

    @property
    def sd(self) -> float:
        """Sample standard deviation."""
        return float(self.moments[1]) * len(self.values) ** 0.5

    @cached_property
    def size(self) -> float:
        """The largest value, beside which a contrast may be rounding."""
        return float(np.abs(self.values).max()) if self.values.size else 0.0

    def at(self, seeds: Sequence[str]) -> "CellRuns":
        """Only these seeds, in this order."""
        if tuple(seeds) == self.seeds:
            return self
        place = {seed: index for index, seed in enumerate(self.seeds)}
        picked = [place[seed] for seed in seeds]
        drawn = None if self.drawn is None else self.drawn[:, picked]
        return CellRuns(tuple(seeds), self.values[picked], self.runs, self.diverged, self.missing, self.nested, drawn)


@dataclass(frozen=True)
class Runs:
    """A table as a design: levels of every factor, cells by their levels, and notes on what is not as it should be."""

    factors: tuple[str, ...]
    levels: tuple[Levels, ...]
    cells: dict[Levels, CellRuns]
    notes: tuple[str, ...]

    def name(self, cell: Levels) -> str:
        """As `gate=none, registers=0`."""
        return ", ".join(f"{factor}={value}" for factor, value in zip(self.factors, cell, strict=True))


def tidy(
    frame: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    pair_by: str | None,
    nested: str | None = None,
    image: str | None = None,
    diverged: str | None = None,
) -> Runs:
    """Read a table's columns into runs; arguments as those of `compare_table`.

    Raises:
        UserError: For every column, value or row that cannot be what it is said to be.
    """
    if pair_by is None and (nested or image):
        raise UserError(f"{'nested' if nested else 'image'} needs pair_by, the column that tells runs apart")
    rows, notes = _rows(frame, metric, factors, pair_by, nested, image, diverged)
    keys = rows.columns[: len(factors)]
    all_levels = tuple(in_order(rows[key].to_list()) for key in keys)
    if prod(map(len, all_levels)) == 1:
        raise UserError(f"factors={','.join(factors)}: one level each, nothing to compare")
    notes += [
        f"{name} has one level, {found[0]}: it plays no part"
        for name, found in zip(factors, all_levels, strict=True)
        if len(found) == 1
    ]
    runs = rows.with_columns(pl.col("diverged").any().over([*keys, "seed"]))
    runs = runs.with_columns(pl.when("diverged").then(None).otherwise("value").alias("value"))
    runs = runs.with_columns(nested=pl.lit(1)) if nested is None else _average_nested(runs, keys, nested, notes)
    drawn = None
    if image is not None:
        runs, drawn = _average_images(runs, keys, image, notes)
    cells = _cells(runs, keys, drawn)
    design = Runs(tuple(factors), all_levels, cells, ())
    return replace(design, notes=(*notes, *_left_out(design, runs, metric, keys, pair_by)))


def _rows(
    frame: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    pair_by: str | None,
    nested: str | None,
    image: str | None,
    diverged: str | None,
) -> tuple[pl.DataFrame, list[str]]:
    """The columns that count, factors first, under names of ours, and notes."""
    named = {"seed": pair_by, "nested": nested, "image": image}
    columns = {f"factor {place}": name for place, name in enumerate(factors)}
    columns |= {key: name for key, name in named.items() if name is not None}
    require_columns(
        frame,
        {
            "metric": [metric],
            "factors": list(factors),
            "diverged": [diverged] if diverged else None,
            **{key.replace("seed", "pair_by"): [name] for key, name in named.items() if name},
        },
    )
    data = {key: levels(frame, name).alias(key) for key, name in columns.items()}
    if pair_by is None:
        data["seed"] = pl.arange(len(frame), eager=True).cast(pl.String)
    elif (data["seed"] == "none").any():
        raise UserError(f"pair_by={pair_by} has no value in row {(data['seed'] == 'none').arg_true()[0] + 1}")
    data["value"] = numbers(frame, metric)
    data["diverged"] = truths(frame, diverged) if diverged else pl.repeat(False, len(frame), eager=True)
    rows = pl.DataFrame([column.alias(key) for key, column in data.items()])
    notes = []
    if pair_by is not None:
        _refuse_doubles(rows, columns)
    elif frame.is_duplicated().any():
        notes.append(f"{frame.is_duplicated().sum()} rows are the same in every column as others; each counts as a run")
    return rows, notes + [
        f"{name} has no value in {frame[name].null_count()} rows; they are taken as level none"
        for name in factors
        if frame[name].null_count()
    ]


def _refuse_doubles(rows: pl.DataFrame, names: dict[str, str]) -> None:
    twice = rows.group_by(list(names), maintain_order=True).len().filter(pl.col("len") > 1)
    if len(twice):
        first = twice.row(0, named=True)
        where = ", ".join(f"{name}={first[key]}" for key, name in names.items())
        more = f" ({len(twice)} such)" if len(twice) > 1 else ""
        raise UserError(
            f"{first['len']} rows for {where}{more}; name the column that tells them apart: a factor, "
            "--nested for seeds within a run, --image for images"
        )


def _average_nested(rows: pl.DataFrame, keys: list[str], nested: str, notes: list[str]) -> pl.DataFrame:
    """One row a run (and image): its mean over nested seeds, which are no runs of their own."""
    by = [*keys, "seed", *(["image"] if "image" in rows.columns else [])]
    runs = rows.group_by(by, maintain_order=True).agg(
        pl.col("value").mean(),
        pl.col("diverged").any(),
        pl.col("value").std().alias("within"),
        pl.col("value").count().cast(pl.Int64).alias("nested"),
        pl.len().alias("rows"),
    )
    counts = runs.filter(~pl.col("diverged"))["nested"]
    least, most = min(counts, default=0), max(counts, default=0)
    within = runs["within"].mean()
    spread_within = f", sd {within:.3g} within a run" if isinstance(within, float) else ""
    if least < most:
        notes.append(f"runs do not have the same values of {nested}: their means can differ for that alone")
    notes.append(
        f"{nested}: {least if least == most else f'{least} to {most}'} values a run are averaged"
        f"{spread_within}; n counts runs"
    )
    lost = (runs["rows"].cast(pl.Int64) - runs["nested"]).filter(~runs["diverged"]).sum()
    if lost:
        notes.append(f"{nested}: {lost} values are missing or not finite; their runs are means of the others")
    return runs


def _average_images(
    rows: pl.DataFrame, keys: list[str], image: str, notes: list[str]
) -> tuple[pl.DataFrame, dict[Any, Floats]]:
    """One row a run: its mean over the images that all runs have; and its means over resampled images."""
    by = [*keys, "seed"]
    kept = rows.filter(pl.col("value").is_not_null())
    count = kept.select(by).n_unique()
    common = kept.group_by("image").len().filter(pl.col("len") == count)["image"]
    total = rows["image"].n_unique()
    if len(common) < 2:
        raise UserError(f"image={image}: {len(common)} of {total} images have a finite value in every run")
    notes.append(
        f"intervals are over seeds and {len(common)} images, both resampled"
        + (
            f"; {total - len(common)} of {total} images lack a finite value in some run and are left out"
            if len(common) < total
            else ""
        )
    )
    ordered = kept.filter(pl.col("image").is_in(common.to_list())).sort([*by, "image"])
    values = ordered["value"].to_numpy().reshape(count, len(common))
    names = ordered.select(by)[:: len(common)].rows()
    drawn = resample_images(values)
    runs = rows.group_by(by, maintain_order=True).agg(pl.col("diverged").any(), pl.col("nested").max())
    means = dict(zip(names, values.mean(axis=1).tolist(), strict=True))
    runs = runs.with_columns(pl.Series("value", [means.get(row) for row in runs.select(by).rows()], dtype=pl.Float64))
    return runs, dict(zip(names, drawn.T, strict=True))


def _cells(runs: pl.DataFrame, keys: list[str], drawn: dict[Any, Floats] | None) -> dict[Levels, CellRuns]:
    """Runs by cell, seeds in order."""
    place = {seed: index for index, seed in enumerate(in_order(runs["seed"].to_list()))}
    runs = runs.with_columns(runs["seed"].replace_strict(place, return_dtype=pl.Int64).alias("place")).sort("place")
    cells = {}
    for cell, group in runs.partition_by(keys, as_dict=True, maintain_order=True).items():
        there = group.filter(pl.col("value").is_not_null())
        seeds = tuple(there["seed"].to_list())
        diverged = int(group["diverged"].sum())
        cells[cell] = CellRuns(
            seeds=seeds,
            values=there["value"].to_numpy(),
            runs=len(group),
            diverged=diverged,
            missing=len(group) - diverged - len(there),
            nested=int(there["nested"].max() or 1),  # type: ignore[arg-type]
            drawn=None if drawn is None else np.array([drawn[(*cell, seed)] for seed in seeds]).T,
        )
    return cells


def _left_out(design: Runs, runs: pl.DataFrame, metric: str, keys: list[str], pair_by: str | None) -> list[str]:
    """What a reader must know: missing values, diverged runs, missing cells, unequal seeds, no spread."""
    notes = []
    missing = runs.filter(pl.col("value").is_null() & ~pl.col("diverged"))
    if len(missing):
        named = [
            f"{design.name(row[:-1])}{f', {pair_by}={row[-1]}' if pair_by else ''}"
            for row in missing.select([*keys, "seed"]).rows()
        ]
        notes.append(
            f"{metric} is missing or not finite in {len(named)} runs that are not marked diverged; "
            f"they are left out: {listed(named)}"
        )
    if runs["diverged"].any():
        named = [
            f"{cell.diverged} of {cell.runs - cell.missing} with {design.name(levels)}"
            for levels, cell in design.cells.items()
            if cell.diverged
        ]
        notes.append(
            f"diverged runs ({listed(named)}) are counted as an outcome; means are of the runs that did not diverge"
        )
    holes = prod(map(len, design.levels)) - len(design.cells)
    if holes:
        named = [design.name(cell) for cell in _crossed(design.levels) if cell not in design.cells][: MANY + 1]
        notes.append(f"{holes} cells have no runs: {listed(named, holes)}")
    if pair_by and len({cell.seeds for cell in design.cells.values()}) > 1:
        sizes = [len(cell.seeds) for cell in design.cells.values()]
        common = set.intersection(*(set(cell.seeds) for cell in design.cells.values()))
        notes.append(
            f"cells do not have the same values of {pair_by} ({min(sizes)} to {max(sizes)} each, "
            f"{len(common)} in all of them): a pair needs both"
        )
    everything = np.concatenate([cell.values for cell in design.cells.values()])
    if len(everything) > 1 and not spread(everything) > 0:
        notes.append(f"{metric} is constant ({everything[0]:g}): there is nothing to infer")
    return notes


def _crossed(levels: tuple[Levels, ...]) -> list[Levels]:
    crossed: list[Levels] = [()]
    for found in levels:
        crossed = [(*cell, value) for cell in crossed for value in found]
    return crossed


def listed(names: Sequence[str], total: int | None = None) -> str:
    """Some of a list, with how many more there are."""
    more = (total or len(names)) - min(MANY, len(names))
    return "; ".join(names[:MANY]) + (f"; and {more} more" if more else "")
