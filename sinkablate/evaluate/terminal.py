"""The table that `evaluate` ends with: every number next to its floors."""

import polars as pl
from rich.console import Console
from rich.table import Table

from sinkablate.evaluate.rows import mean_of, protocols_of, sd_of
from sinkablate.evaluate.tasks import TASKS

COLUMNS = {"model": "model", "random": "random backbone", "pixels": "raw pixels"}


def print_results(table: pl.DataFrame, model: str, out: str | None = None) -> None:
    """Print the numbers of all tasks, and the directory of the results.

    Args:
        table: The rows of `evaluation.parquet`.
        model: Name of the model.
        out: The directory that holds the results.
    """
    console = Console(highlight=False)
    whole = table.filter(pl.col("item") == "")
    shown = Table(title=model, title_justify="left")
    for column in ("task", "protocol", "metric"):
        shown.add_column(column, no_wrap=True)
    for name in (name for name in COLUMNS if name in set(whole["backbone"])):
        shown.add_column(COLUMNS[name], justify="right", no_wrap=True)
    for task, protocols in protocols_of(whole).items():
        for protocol in protocols:
            for metric in TASKS[task].shown:
                rows = whole.filter(
                    (pl.col("task") == task) & (pl.col("protocol") == protocol) & (pl.col("metric") == metric)
                )
                if len(rows):
                    cells = (
                        number(rows.filter(pl.col("backbone") == name)["value"])
                        for name in COLUMNS
                        if name in set(whole["backbone"])
                    )
                    shown.add_row(task, protocol, metric, *cells)
    console.print(shown)
    seeds = whole["seed"].n_unique() - whole["seed"].is_null().any()
    if seeds > 1:
        console.print(
            f"± is the sample standard deviation over {seeds} probe seeds on one backbone, which are one run: it says "
            "nothing about other trainings (compare --nested)",
            soft_wrap=True,
        )
    if out is not None:
        console.print(f"results: {out}", soft_wrap=True)


def number(values: pl.Series) -> str:
    """Return the mean over seeds with four digits, and the standard deviation over several."""
    if not len(values):
        return "-"
    return f"{mean_of(values):.4f}" + (f" ± {sd_of(values):.4f}" if len(values) > 1 else "")
