"""Average the rows of a run: over nested seeds, or over images."""

from typing import Any

import polars as pl

from sinkablate.compare.statistics import Floats, resample_images
from sinkablate.errors import UserError


def average_nested(rows: pl.DataFrame, keys: list[str], nested: str) -> tuple[pl.DataFrame, list[str]]:
    """Average the nested seeds of each run, which are not runs of their own.

    Returns:
        One row per run (and image) with the column `nested`, the number of values averaged; and notes.
    """
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
    notes = []
    if least < most:
        notes.append(f"runs do not have the same values of {nested}, which alone can make their means differ")
    span = least if least == most else f"{least} to {most}"
    notes.append(f"{nested}: {span} values per run are averaged{spread_within}; n counts runs")
    lost = (runs["rows"].cast(pl.Int64) - runs["nested"]).filter(~runs["diverged"]).sum()
    if lost:
        notes.append(f"{nested}: {lost} values are missing or not finite; their runs are means of the other values")
    return runs, notes


def average_images(
    rows: pl.DataFrame, keys: list[str], image: str
) -> tuple[pl.DataFrame, dict[Any, Floats], list[str]]:
    """Average each run over the images that all runs have.

    Returns:
        One row per run; the means of each run over resampled images (draws,), by its levels and seed; and notes.

    Raises:
        UserError: Fewer than two images have a finite value in every run.
    """
    by = [*keys, "seed"]
    kept = rows.filter(pl.col("value").is_not_null())
    count = kept.select(by).n_unique()
    common = kept.group_by("image").len().filter(pl.col("len") == count)["image"]
    total = rows["image"].n_unique()
    if len(common) < 2:
        raise UserError(f"image={image}: only {len(common)} of {total} images have a finite value in every run")
    notes = [f"intervals are over seeds and {len(common)} images, both resampled"]
    if len(common) < total:
        notes[0] += f"; {total - len(common)} of {total} images lack a finite value in some run and are left out"
    ordered = kept.filter(pl.col("image").is_in(common.to_list())).sort([*by, "image"])
    values = ordered["value"].to_numpy().reshape(count, len(common))
    names = ordered.select(by)[:: len(common)].rows()
    drawn = resample_images(values)
    runs = rows.group_by(by, maintain_order=True).agg(pl.col("diverged").any(), pl.col("nested").max())
    means = dict(zip(names, values.mean(axis=1).tolist(), strict=True))
    runs = runs.with_columns(pl.Series("value", [means.get(row) for row in runs.select(by).rows()], dtype=pl.Float64))
    return runs, dict(zip(names, drawn.T, strict=True)), notes
