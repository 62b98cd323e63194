"""The table that `evaluate` ends with: every number next to its floors."""

from itertools import product

import polars as pl
from rich.console import Console
from rich.table import Table

from sinkablate.evaluate.rows import mean_of, protocols_of, sd_of
from sinkablate.evaluate.tasks import TASKS

COLUMNS = {"model": "model", "random": "random weights", "pixels": "raw pixels"}


def print_results(table: pl.DataFrame, model: str, out: str | None = None) -> None:
    """Print the numbers of all tasks, and the directory of the results.

    Args:
        table: The rows of `evaluation.parquet`.
        model: Name of the model.
        out: The directory that holds the results.
    """
    console, whole = Console(highlight=False), table.filter(pl.col("item") == "")
    backbones = [name for name in COLUMNS if name in set(whole["backbone"])]
    shown = Table(title=model, title_justify="left")
    shown.add_column("task")
    shown.add_column("metric", no_wrap=True)
    for name in backbones:
        shown.add_column(COLUMNS[name], justify="right", no_wrap=True)
    for task, protocols in protocols_of(whole).items():
        for protocol, metric in product(protocols, TASKS[task].shown):
            keys = {"task": task, "protocol": protocol, "metric": metric}
            rows = whole.filter(**keys)
            if len(rows):
                cells = [number(rows.filter(backbone=name)["value"]) for name in backbones]
                shown.add_row(f"{task} {protocol}".strip(), metric, *cells)
    console.print(shown)
    seeds = whole["seed"].n_unique() - whole["seed"].is_null().any()
    if seeds > 1:
        console.print(
            f"± is the sample standard deviation over {seeds} probe seeds on one backbone, which count as one run: it "
            "says nothing about other training runs (compare --nested)",
            soft_wrap=True,
        )
    if out is not None:
        console.print(f"results: {out}", soft_wrap=True)


def number(values: pl.Series) -> str:
    """Return the mean over seeds with three decimals, and the standard deviation over several seeds."""
    if not len(values):
        return "-"
    return short(mean_of(values)) + (f" ± {short(sd_of(values))}" if len(values) > 1 else "")


def short(value: float) -> str:
    """Return a number with three decimals, or in scientific notation if it is smaller than 0.001."""
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"
