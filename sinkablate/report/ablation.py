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
from sinkablate.report.events import events_per_image
from sinkablate.report.run import Run, scalar_metrics
from sinkablate.run.reading import table_of_rows

TASK_METRICS = ("val/acc1", "val/loss")
"""Task metrics, in order of preference."""
EVENTS = "sink events per image"
"""Column of the sink events that a run ended with."""
VARIANT = "variant"
"""The factor that represents the whole configuration of a run."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """One line of a figure with intervals; `low` and `high` are NaN if nothing can be inferred."""

    name: str
    value: float
    low: float
    high: float
    text: str
    """The line in words, shown when the pointer is over it."""
    values: tuple[float, ...] = ()
    """Values of the single runs."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A comparison, and the lines of its figures."""

    comparison: Comparison
    cells: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    interactions: tuple[Estimate, ...]


def task_metrics(runs: Sequence[Run]) -> list[str]:
    """Names of the task metrics that any run ended with, in order of preference."""
    names = {name for run in runs for name in scalar_metrics(run) if not name.startswith(("stability/", "gate/"))}
    return sorted(names, key=lambda name: (*(name != first for first in TASK_METRICS), name))


def run_table(runs: Sequence[Run], factors: Sequence[str], rule: str | None = None) -> pl.DataFrame:
    """One row per run of `fit`: run, variant, seed, factors, diverged, and, if it has finished, its metrics.

    Args:
        runs: Diagnoses among them are left out.
        factors: `variant`, or keys of the configuration, in full or by an ending that only one key has, or only one of
            those that differ between the runs.
        rule: Add the column `EVENTS`, counted by this rule.

    Raises:
        UserError: A factor is not such a key.
    """
    fits = [run for run in runs if run.kind == "run"]
    keys = {name: _keys_of(fits, name) for name in factors if name != VARIANT}
    rows = [
        {
            "run": run.name,
            VARIANT: run.variant,
            "seed": run.seed,
            **{name: run.variant if name == VARIANT else _setting(run, name, keys[name]) for name in factors},
            "diverged": run.diverged,
            **({THREADS: run.summary[THREADS]} if THREADS in run.summary else {}),
            **(run.evaluation | scalar_metrics(run) if run.finished else {}),
            **({EVENTS: events_per_image(run, rule)} if run.finished and rule in run.rules and rule else {}),
        }
        for run in fits
    ]
    return table_of_rows(rows)


def _keys_of(runs: Sequence[Run], name: str) -> list[str]:
    """Configuration keys with this name or ending; if there are several, only those that differ between the runs."""
    keys = list(dict.fromkeys(key for run in runs for key in run.config if key == name or key.endswith(f".{name}")))
    differing = [key for key in keys if len({str(run.config.get(key)) for run in runs}) > 1]
    return differing if len(keys) > 1 and differing else keys


def _setting(run: Run, name: str, keys: Sequence[str]) -> str:
    """Value of the only configuration key that a name stands for."""
    held = [key for key in keys if key in run.config]
    if len(held) != 1:
        several = f"; it could be {', '.join(held[:4])}" if held else ""
        raise UserError(f"factors: {name} does not name exactly one configuration key of {run.name}{several}")
    return str(run.config[held[0]])


def refuse_collisions(table: pl.DataFrame, factors: Sequence[str]) -> None:
    """Refuse runs that have the same factors and the same seed.

    Raises:
        UserError: Names two such runs, and what to change on the command line of `report`.
    """
    if not len(table):
        return
    for _, group in table.group_by([*factors, "seed"], maintain_order=True):
        if len(group) > 1:
            first, second, *_ = group["run"].to_list()
            where = ", ".join(f"{name}={group[name][0]}" for name in (*factors, "seed"))
            raise UserError(
                f"runs: {first} and {second} both have {where}; leave one of them out, or add a configuration key in "
                f"which they differ: --factors {','.join(factors)},KEY"
            )


def ablation(
    table: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    *,
    primary: Primary,
    baseline: dict[str, str],
    lower_is_better: bool | None,
    margin: float | None,
    detect: float | None,
) -> Ablation:
    """Compare the cells of a table of runs; pairs are those of the column `seed`.

    Args:
        table: One row per run.
        metric: Column to compare.
        factors: Columns whose levels define the cells.
        primary: The test that decides, `paired` or `welch`; see `compare`.
        baseline: Level of each factor in the cell to compare with.
        lower_is_better: Whether smaller values are better; None decides by the name of the metric.
        margin: Cells that differ by less are equivalent (TOST).
        detect: An effect for which the number of seeds needed is computed.

    Raises:
        UserError: See `compare`.
    """
    paired = "seed" if "seed" in table.columns else None
    comparison = compare(
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
    places = decimals(comparison)
    diverged = "diverged" if "diverged" in table.columns else None
    cells = tidy(table, metric, factors, paired, diverged=diverged).cells

    def estimate(name: str, of: Inference, more: str, *, sign: bool = True, runs: Sequence[float] = ()) -> Estimate:
        name = short_name(name, factors)
        text = f"{name}: {number(of.value, places, sign=sign)} {interval(of, places, sign=sign)}, {more}"
        return Estimate(name=name, value=of.value, low=of.low, high=of.high, text=text, values=tuple(runs))

    return Ablation(
        comparison=comparison,
        cells=tuple(
            estimate(cell.name, cell.mean, f"n = {cell.n}", sign=False, runs=cells[cell.levels].values.tolist())
            for cell in comparison.cells
        ),
        differences=tuple(
            estimate(difference.cell, difference.estimate, f"{p_is(difference.p_holm)} after Holm")
            for difference in comparison.differences
        ),
        interactions=tuple(
            estimate(
                f"{pair.first} with {pair.second}", pair.interaction, f"{p_is(pair.p_holm)} after Holm, {pair.kind}"
            )
            for pair in comparison.combinations
        ),
    )


def short_name(cell: str, factors: Sequence[str]) -> str:
    """Name of a cell; of the factor `variant` alone, only its level."""
    return cell.removeprefix(f"{VARIANT}=") if tuple(factors) == (VARIANT,) else cell


def page_ablation(ablation: Ablation) -> dict[str, Any]:
    """The lines of the figures as plain values, NaN as null."""

    def lines(estimates: Sequence[Estimate]) -> list[dict[str, Any]]:
        return [
            {"name": line.name, "text": line.text, "values": [value for value in line.values if isfinite(value)]}
            | {key: value if isfinite(value := getattr(line, key)) else None for key in ("value", "low", "high")}
            for line in estimates
        ]

    return {
        "metric": ablation.comparison.metric,
        "baseline": short_name(ablation.comparison.baseline, ablation.comparison.factors),
        "cells": lines(ablation.cells),
        "differences": lines(ablation.differences),
        "interactions": lines(ablation.interactions),
    }
