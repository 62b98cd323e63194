"""The tables that `intervene` ends with."""

import math
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table


def print_findings(summary: dict[str, Any], out: Path) -> None:
    """The headline first; then edits by class, the controls, where it all is."""
    console = Console(highlight=False, markup=False)
    console.print(summary["headline"], soft_wrap=True)
    if "controls" not in summary:
        return
    console.print(f"{summary['model']} on {summary['image_count']} images; {summary['rule_text']}", soft_wrap=True)
    for line in summary["nearest_heads"]:
        console.print(f"  nearest: {line}", soft_wrap=True)
    if summary["heads"] != "auto":
        heads = pl.read_parquet(out / "heads.parquet").with_columns(name=pl.format("{}:{}", "block", "head"))
        console.print(_edits(heads, "median over images [95 % interval over images]", ("name", "class", "images")))
    classes = pl.read_parquet(out / "classes.parquet")
    if len(classes):
        console.print(_edits(classes, "median over heads [95 % interval over blocks]", ("class", "heads")))
    outcome = {True: "as stated", False: "FAILED", None: "not applicable"}
    for control in summary["controls"]:
        console.print(f"control {control['name']}: {outcome[control['passed']]}; {control['says']}", soft_wrap=True)
    console.print(f"results: {out}", soft_wrap=True)


def _edits(rows: pl.DataFrame, title: str, keys: tuple[str, ...]) -> Table:
    """A table of what edits did, a line for each row."""
    table = Table(title=title, title_justify="left")
    columns = {"effect": "final effect", "common_share": "common share", "donor_cosine": "cosine to donor"}
    extra = {name: text for name, text in {"loss_edited": "loss", "kl": "KL", "agreement": "agreement"}.items()
             if name in rows.columns}
    for name in (*keys, "edit", *columns.values(), *extra.values()):
        table.add_column(name, justify="left" if name in (*keys, "edit") else "right", no_wrap=True)
    for row in rows.iter_rows(named=True):
        table.add_row(*(str(row[name]) for name in (*keys, "edit")),
                      *(_interval(row, name) for name in (*columns, *extra)))
    return table


def _interval(row: dict[str, Any], name: str) -> str:
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None or math.isnan(value):
        return "-"
    span = "" if low is None or math.isnan(low) else f" [{low:.3g}, {high:.3g}]"
    return f"{value:.3g}{span}"
