"""When the sink of a NOP toy forms, and how much attention it takes, in runs that differ in one number."""

import polars as pl
from scipy import stats

FORMED = 0.5
"""The sink has formed when the tokens that must not change give the null token this share of their attention."""


def history(metrics: pl.DataFrame, value: float, seed: int) -> pl.DataFrame:
    """Return the evaluations of one run.

    Args:
        metrics: Rows of its `metrics.csv`.
        value: The number that the runs differ in, such as p.
        seed: The seed of the run.

    Returns:
        One row per evaluation: `value`, `seed`, `step`, `attention` (to the null token, from tokens that must not
        change) and `mass` (of the dominant column).
    """
    rows = metrics.filter(pl.col("toy/attention_nop").is_not_null()).sort("step")
    return rows.select(
        pl.lit(value).alias("value"),
        pl.lit(seed).alias("seed"),
        "step",
        pl.col("toy/attention_nop").alias("attention"),
        pl.col("toy/mass").alias("mass"),
    )


def formation_points(evaluations: pl.DataFrame) -> pl.DataFrame:
    """Return one row per run: `value`, `seed`, `formed_step` (null if the sink does not form), `final_mass`.

    Args:
        evaluations: Rows of `history` of any number of runs.
    """
    formed = pl.col("step").filter(pl.col("attention") >= FORMED).min().alias("formed_step")
    last = pl.col("mass").sort_by("step").last().alias("final_mass")
    return evaluations.group_by("value", "seed").agg(formed, last).sort("value", "seed")


def intervals(points: pl.DataFrame, quantity: str) -> pl.DataFrame:
    """Return the mean of a quantity over seeds and its 95 % interval by Student's t.

    Args:
        points: Rows of `formation_points`; seeds whose quantity is null are left out.
        quantity: `formed_step` or `final_mass`.

    Returns:
        One row per value: `value`, `runs`, `defined` (runs with the quantity), `mean`, `low` and `high`; the mean is
        null without a run, the interval with fewer than two.
    """
    rows = []
    for (value,), group in points.group_by("value", maintain_order=True):
        numbers = group[quantity].drop_nulls().cast(pl.Float64).to_numpy()
        mean = float(numbers.mean()) if len(numbers) else None
        half = float(stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers)) if len(numbers) > 1 else None
        ends = (None, None) if mean is None or half is None else (mean - half, mean + half)
        rows.append((value, len(group), len(numbers), mean, *ends))
    schema = {"value": pl.Float64, "runs": pl.Int64, "defined": pl.Int64} | dict.fromkeys(
        ("mean", "low", "high"), pl.Float64
    )
    return pl.DataFrame(rows, schema=schema, orient="row")
