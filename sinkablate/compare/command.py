"""The verb `compare`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sinkablate.compare.analysis import compare_table
from sinkablate.compare.comparison import Primary
from sinkablate.compare.correction import corrected
from sinkablate.compare.formats import Format, render
from sinkablate.compare.table import in_order, level, levels, read_table
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.files.writing import write_text

if TYPE_CHECKING:
    import polars as pl

UNSEEN_WIDTH = 180
"""Columns of the tables where there is no terminal."""


def compare(
    results: str,
    *,
    metric: str,
    factors: str,
    baseline: str | None = None,
    where: str | None = None,
    pair_by: str = "seed",
    primary: Primary = "paired",
    lower_is_better: bool | str = False,
    margin: str | None = None,
    detect: str | None = None,
    family: Literal["metric", "all"] = "metric",
    nested: str | None = None,
    image: str | None = None,
    diverged: str | None = None,
    format: Format = "table",
    out: str | None = None,
    overwrite: bool = False,
) -> str:
    """Say what a table of runs supports: differences, complementary or not, interaction, and how many seeds it takes.

    docs/compare.md says what each sentence means.

    Args:
        results: A .csv or .parquet file, one row a run: factors, seed, metrics.
        metric: Column of numbers; several with commas between.
        factors: Columns that make the cells, with commas between.
        baseline: The cell to compare with, as gate=none,registers=0; a factor left out starts at none, 0, false, off or
            baseline, if it has one of these.
        where: Only rows with these levels, as config=nop; columns that are no factors may be named.
        pair_by: Runs of two cells with the same value in this column are pairs; none: there are no pairs.
        primary: The test that counts, chosen before looking: paired for runs that share their random state by seed,
            welch for other people's tables. Both are shown.
        lower_is_better: Smaller is better, for all metrics or for those named, with commas between.
        margin: Cells that differ by less are the same (TOST), in the metric's units; METRIC=X,METRIC=X for several.
        detect: An effect to say how many seeds would find it; in the metric's units, as margin.
        family: What Holm corrects over: the differences of one metric, or of all metrics named.
        nested: Column of seeds within a run (probe seeds of one backbone); they are averaged.
        image: Column of images, where a row is one image of a run; intervals resample seeds and images.
        diverged: Column that says which runs diverged; the column `diverged` if there is one.
        format: What is printed.
        out: File to write it to as well.
        overwrite: Replace the file that is there.

    Raises:
        UserError: For a table, column, level or number that cannot be used as asked.
    """
    metrics, smaller = _names(metric, "metric"), _smaller(lower_is_better)
    for name in smaller or ():
        if name not in metrics:
            raise UserError(f"lower_is_better: {name} is not one of the metrics{did_you_mean_or_list(name, metrics)}")
    margins, effects = _amounts(margin, "margin", metrics), _amounts(detect, "detect", metrics)
    target = None if out is None else _target(out, results, overwrite)
    frame = _rows(read_table(Path(results)), named_levels(where, "where"))
    unpaired = pair_by == "none" and "none" not in frame.columns
    found = [
        compare_table(
            frame,
            metric=name,
            factors=_names(factors, "factors"),
            baseline=named_levels(baseline, "baseline"),
            pair_by=None if unpaired else pair_by,
            primary=primary,
            lower_is_better=smaller is None or name in smaller,
            margin=margins.get(name),
            detect=effects.get(name),
            nested=nested,
            image=image,
            diverged=diverged,
        )
        for name in metrics
    ]
    seen = shutil.get_terminal_size((0, 0)).columns
    text = render(corrected(found) if family == "all" else found, format, seen or UNSEEN_WIDTH, wrap=seen > 0)
    if target is not None:
        write_text(target, text + "\n")
    return text


def _names(text: str, key: str) -> list[str]:
    """Words between commas."""
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise UserError(f"{key}={text}: a name is empty")
    if len(set(names)) < len(names):
        raise UserError(f"{key}={text}: a name is repeated")
    return names


def _smaller(given: bool | str) -> list[str] | None:
    """Metrics of which smaller values are better; None: all."""
    if isinstance(given, str):
        return _names(given, "lower_is_better")
    return None if given else []


def named_levels(text: str | None, key: str) -> dict[str, str]:
    """`gate=none,registers=0` as a mapping."""
    return {} if text is None else dict(_assigned(item, key) for item in _names(text, key))


def _rows(frame: "pl.DataFrame", where: dict[str, str]) -> "pl.DataFrame":
    """Rows with the levels asked for."""
    for name, value in where.items():
        if name not in frame.columns:
            raise UserError(f"where: {name}: no such column{did_you_mean_or_list(name, frame.columns)}")
        column = levels(frame, name)
        frame = frame.filter(column == level(value))
        if frame.is_empty():
            raise UserError(
                f"where: no row has {name}={value}{did_you_mean_or_list(value, in_order(column.to_list()))}"
            )
    return frame


def _assigned(item: str, key: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not (name and equals and value):
        raise UserError(f"{key}: {item} is not NAME=VALUE")
    return name, value


def _amounts(text: str | None, key: str, metrics: Sequence[str]) -> dict[str, float]:
    """A number for the one metric, or METRIC=X for each."""
    if text is None:
        return {}
    if "=" not in text and len(metrics) > 1:
        raise UserError(f"{key}={text}: the metrics have their own units; say {metrics[0]}={text},{metrics[1]}=X")
    given = dict(_assigned(item, key) for item in _names(text, key)) if "=" in text else {metrics[0]: text}
    amounts = {}
    for name, value in given.items():
        if name not in metrics:
            raise UserError(f"{key}: {name} is not one of the metrics{did_you_mean_or_list(name, metrics)}")
        try:
            amounts[name] = float(value)
        except ValueError as error:
            raise UserError(f"{key}={value} is not a number") from error
    return amounts


def _target(out: str, results: str, overwrite: bool) -> Path:
    """The file to write, which is not the table itself, nor another that is there."""
    target = Path(out)
    if not out or target.is_dir() or not target.parent.is_dir():
        raise UserError(f"out={out}: not a file in a folder that exists")
    if target.resolve() == Path(results).resolve():
        raise UserError(f"out={out} is the table itself")
    if target.exists() and not overwrite:
        raise UserError(f"out={out} is there; choose another, or give --overwrite")
    return target
