"""The tables that `intervene` ends with."""

import math
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from sinkablate.intervene.edits import edit_named


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
        heads = pl.read_parquet(out / "heads.parquet").filter(pl.col("head").is_not_null())
        for (block, head), some in heads.group_by(["block", "head"], maintain_order=True):
            console.print(
                _edits(
                    some,
                    f"block {block} head {head} ({some['class'][0]}) on {some['images'][0]} images, "
                    "median [95 % interval over images]",
                )
            )
    for (name,), some in pl.read_parquet(out / "classes.parquet").group_by(["class"], maintain_order=True):
        console.print(
            _edits(
                some,
                f"{name}: {some['heads'][0]} heads in {some['blocks'][0]} blocks, median [95 % interval over blocks]",
            )
        )
    outcome = {True: "as stated", False: "FAILED", None: "not applicable"}
    for control in summary["controls"]:
        console.print(f"control {control['name']}: {outcome[control['passed']]}; {control['says']}", soft_wrap=True)
    console.print(f"results: {out}", soft_wrap=True)


def _edits(rows: pl.DataFrame, title: str) -> Table:
    """Return a table of what edits did, one line per edit, that fits eighty columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {"common_share": "common share", "donor_cosine": "donor cosine"}
    columns |= {name: text for name, text in {"kl": "KL", "loss_edited": "loss"}.items() if name in rows.columns}
    if "loss" in rows.columns:
        columns["loss_edited"] = f"loss (unedited: {_number(rows['loss'][0])})"
    table.add_column("edit", min_width=28)
    table.add_column("final effect", no_wrap=True)
    for name in columns.values():
        table.add_column(name, justify="right")
    for row in rows.iter_rows(named=True):
        table.add_row(edit_named(row["edit"]).title, _interval(row), *(_number(row[name]) for name in columns))
    return table


def _interval(row: dict[str, Any]) -> str:
    value, low, high = (row[f"effect{end}"] for end in ("", "_low", "_high"))
    span = "" if low is None or math.isnan(low) else f" [{_number(low)}, {_number(high)}]"
    return f"{_number(value)}{span}"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2g}"
