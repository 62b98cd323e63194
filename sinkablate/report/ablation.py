"""The runs of a report as one table for `compare`, and what the page and the figures show of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import polars as pl

from sinkablate.compare.analysis import THREADS, compare
from sinkablate.compare.comparison import Comparison, Primary
from sinkablate.compare.numbers import decimals, interval, number, p_is
from sinkablate.compare.statistics import Inference
from sinkablate.compare.tidy import tidy
from sinkablate.errors import UserError
from sinkablate.report.contents import scalar_metrics
from sinkablate.report.runs import Run

TASK_METRICS = ("val/acc1", "val/loss")
"""The first that a run has is what it was trained for."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One line of a figure with intervals; `low` and `high` are NaN where there is no inference."""

    name: str
    value: float
    low: float
    high: float
    text: str
    """All of it in words, for hovering."""
    values: tuple[float, ...] = ()
    """Of the single runs."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A comparison and what is drawn of it."""

    comparison: Comparison
    cells: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    interactions: tuple[Estimate, ...]


def task_metrics(runs: Sequence[Run]) -> list[str]:
    """Numbers that some run ended with, what it was trained for first; stability and gates are no task metrics."""
    names = {name for run in runs for name in scalar_metrics(run) if not name.startswith(("stability/", "gate/"))}
    return sorted(names, key=lambda name: (*(name != first for first in TASK_METRICS), name))


def run_table(runs: Sequence[Run], factors: Sequence[str]) -> pl.DataFrame:
    """One row a run of `fit`: run, variant, seed, the factors, diverged, and what it ended with if it has finished.

    Args:
        runs: Diagnoses among them are left out.
        factors: `variant`, or keys of the configuration, whole or by an ending that only one key has.

    Raises:
        UserError: A factor is no such key.
    """
    trained = [run for run in runs if run.kind == "run"]
    rows = [
        {
            "run": run.name,
            "variant": run.variant,
            "seed": run.seed,
            **{name: run.variant if name == "variant" else _setting(run, name) for name in factors},
            "diverged": run.diverged,
            **({THREADS: run.summary[THREADS]} if THREADS in run.summary else {}),
            **(scalar_metrics(run) if run.finished else {}),
        }
        for run in trained
    ]
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    return pl.DataFrame({name: pl.Series(name, [row.get(name) for row in rows], strict=False) for name in columns})


def _setting(run: Run, name: str) -> str:
    found = [key for key in run.config if key == name or key.endswith(f".{name}")]
    if len(found) != 1:
        several = f"; it could be {', '.join(found[:4])}" if found else ""
        raise UserError(f"factors: {name} is not one key of the configuration of {run.name}{several}")
    return str(run.config[found[0]])


def ablation(
    table: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    *,
    primary: Primary,
    baseline: dict[str, str],
    lower_is_better: bool,
    margin: float | None,
    detect: float | None,
) -> Ablation:
    """Compare the cells of a table of runs; pairs are those of the column `seed`.

    Args:
        table: One row a run.
        metric: Column that is compared.
        factors: Columns that make the cells.
        primary: As for `compare`, which explains the others too.
        baseline: Level of each factor.
        lower_is_better: Smaller values are better.
        margin: For saying that cells are the same.
        detect: An effect to say how many seeds would find it.

    Raises:
        UserError: As `compare`.
    """
    paired = "seed" if "seed" in table.columns else None
    found = compare(
        table,
        metric=metric,
        factors=factors,
        baseline=baseline,
        pair_by=paired,
        primary=primary,
        lower_is_better=lower_is_better,
        margin=margin,
        detect=detect,
    )
    places = decimals(found)
    diverged = "diverged" if "diverged" in table.columns else None
    values = {
        cell: each.values.tolist()
        for cell, each in tidy(table, metric, factors, paired, diverged=diverged).cells.items()
    }

    def estimate(name: str, of: Inference, more: str, *, sign: bool = True, runs: Sequence[float] = ()) -> Estimate:
        text = f"{name}: {number(of.value, places, sign=sign)} {interval(of, places, sign=sign)}, {more}"
        return Estimate(name=name, value=of.value, low=of.low, high=of.high, text=text, values=tuple(runs))

    return Ablation(
        comparison=found,
        cells=tuple(
            estimate(cell.name, cell.mean, f"n = {cell.n}", sign=False, runs=values[cell.levels])
            for cell in found.cells
        ),
        differences=tuple(
            estimate(each.cell, each.estimate, f"{p_is(each.p_holm)} after Holm") for each in found.differences
        ),
        interactions=tuple(
            estimate(
                f"{each.first} with {each.second}", each.interaction, f"{p_is(each.p_holm)} after Holm, {each.kind}"
            )
            for each in found.combinations
        ),
    )


def page_ablation(made: Ablation) -> dict[str, Any]:
    """As plain values, NaN as null."""

    def lines(some: Sequence[Estimate]) -> list[dict[str, Any]]:
        return [
            {"name": each.name, "text": each.text, "values": [value for value in each.values if isfinite(value)]}
            | {key: value if isfinite(value := getattr(each, key)) else None for key in ("value", "low", "high")}
            for each in some
        ]

    cells = [{**line, "mean": line["value"]} for line in lines(made.cells)]
    return {
        "metric": made.comparison.metric,
        "cells": cells,
        "differences": lines(made.differences),
        "interactions": lines(made.interactions),
    }
