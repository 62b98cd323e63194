"""What `intervene` prints at the end: its findings in one line, then tables in plain words."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table

from sinkablate.diagnose.terminal import unit_of
from sinkablate.intervene.edits import edit_named
from sinkablate.run.schema import final_tokens

EXPLANATION = (
    "effect: relative change (RMS) of the {tokens}, without the sink; common: part of that change which all "
    "tokens have in common; cosine: between the change and the difference from the donor {unit}'s output"
)


def print_findings(summary: dict[str, Any], out: Path, notes: Sequence[str]) -> None:
    """Print the headline, the edits by head or class, the controls, and where the results are.

    Args:
        summary: The content of `summary.json`, or the headline alone while other shards are still to come.
        out: Directory of the results.
        notes: What there is to say about the weights.
    """
    console = Console(highlight=False, markup=False)
    console.print(summary["headline"], soft_wrap=True)
    if "controls" not in summary:
        return
    unit = unit_of(summary)
    console.print(f"{summary['model']} on {summary['image_count']} {unit}s; {summary['rule_text']}", soft_wrap=True)
    for note in notes:
        console.print(note, soft_wrap=True)
    for line in summary["nearest_heads"]:
        console.print(f"  nearest: {line}", soft_wrap=True)
    if summary["heads"] != "auto":
        heads = pl.read_parquet(out / "heads.parquet").filter(pl.col("head").is_not_null())
        for (block, head), rows in heads.group_by(["block", "head"], maintain_order=True):
            title = f"block {block} head {head} ({_words(rows['class'][0])}), median over {rows['images'][0]} {unit}s"
            console.print(_edits(rows, title))
    for (name,), rows in pl.read_parquet(out / "classes.parquet").group_by(["class"], maintain_order=True):
        heads_of_class = "" if name == "pathway" else f"{_count(rows['heads'][0], 'head')} in "
        over = f"{heads_of_class}{_count(rows['blocks'][0], 'block')}"
        title = f"{_words(str(name))}, median over {over} (bootstrap over blocks)"
        console.print(_edits(rows, title))
    console.print(EXPLANATION.format(tokens=final_tokens(summary), unit=unit), soft_wrap=True)
    outcome = {True: "as expected", False: "FAILED", None: "not applicable"}
    for control in summary["controls"]:
        console.print(f"control {control['name']}: {outcome[control['passed']]}; {control['says']}", soft_wrap=True)
    console.print(f"results: {out}", soft_wrap=True)


def _count(number: int, noun: str) -> str:
    """Return a number with its noun: `1 block`, `3 blocks`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _words(name: str) -> str:
    """Return the name of a class in words."""
    label, _, rest = name.partition(",")
    return {"nop": "NOP", "pathway": "global pathway", "none": "no label"}.get(label, label) + rest.replace(
        " ", ", ", 1
    )


def _edits(rows: pl.DataFrame, title: str) -> Table:
    """Return a table of what edits did, one line per edit, that fits eighty columns."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {"common_share": "common", "donor_cosine": "cosine"}
    columns |= {name: text for name, text in {"kl": "KL", "loss_edited": "loss"}.items() if name in rows.columns}
    if "loss" in rows.columns:
        columns["loss_edited"] = f"loss (unedited: {_number(rows['loss'][0])})"
    table.add_column("edit", no_wrap=True)
    table.add_column("effect [95 % interval]", no_wrap=True)
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
