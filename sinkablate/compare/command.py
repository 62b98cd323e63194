"""The command `compare`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sinkablate.compare import analysis
from sinkablate.compare.comparison import Primary
from sinkablate.compare.correction import corrected
from sinkablate.compare.formats import Format, is_rendered, render
from sinkablate.compare.table import in_order, level, levels, read_table
from sinkablate.errors import UserError
from sinkablate.files.ownership import refuse_foreign_file
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.files.writing import write_text

if TYPE_CHECKING:
    import polars as pl

DEFAULT_WIDTH = 180
"""Width of the tables, in characters, if the output is not a terminal."""


def compare(
    results: str,
    *,
    metric: str,
    factors: str,
    baseline: str | None = None,
    where: str | None = None,
    pair_by: str = "seed",
    primary: Primary = "paired",
    lower_is_better: bool | str | None = None,
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
    """Compare the runs of a table: differences, complementary effects, interactions, and how many seeds they need.

    docs/compare.md explains every sentence of the output.

    Args:
        results: A .csv or .parquet file with one row per run: factors, seed, metrics.
        metric: Column of numbers, or several, separated by commas.
        factors: Columns whose levels make the cells, separated by commas.
        baseline: Cell to compare with, as in gate=none,registers=0. A factor that is not named starts at its level
            none, 0, false, off or baseline.
        where: Use only rows with these levels, as in config=nop; any column can be named.
        pair_by: Column whose equal values in two cells form pairs; none for unpaired runs.
        primary: Test that decides, chosen before looking at the results: paired for runs that share their random state
            by seed, welch for other tables. Both are shown.
        lower_is_better: Smaller values are better (true) or worse (false), or the metrics whose smaller values are
            better, separated by commas. By default the name decides: losses and errors are better if they are lower,
            accuracies if they are higher, and other metrics are only called higher or lower.
        margin: Cells that differ by less are equivalent (TOST), in the metric's units; METRIC=X,METRIC=X for several.
        detect: Effect for which the number of seeds needed is shown, in the metric's units, as for margin.
        family: What Holm's correction covers: the differences of one metric, or of all metrics named.
        nested: Column of seeds within a run (probe seeds of one backbone), which are averaged.
        image: Column of images, if a row is one image of a run; intervals resample seeds and images.
        diverged: Column that marks diverged runs (default: the column `diverged`, if there is one).
        format: Format of the output.
        out: File to which the output is written as well.
        overwrite: Replace this file if it exists.

    Raises:
        UserError: A table, column, level or number cannot be used.
    """
    metrics = _names(metric, "metric")
    directions = _directions(lower_is_better, metrics)
    margins, effects = _amounts(margin, "margin", metrics), _amounts(detect, "detect", metrics)
    target = None if out is None else _target(out, results, overwrite)
    frame = _rows(read_table(Path(results)), named_levels(where, "where"))
    unpaired = pair_by == "none" and "none" not in frame.columns
    comparisons = [
        analysis.compare(
            frame,
            metric=name,
            factors=_names(factors, "factors"),
            baseline=named_levels(baseline, "baseline"),
            pair_by=None if unpaired else pair_by,
            primary=primary,
            lower_is_better=directions.get(name),
            margin=margins.get(name),
            detect=effects.get(name),
            nested=nested,
            image=image,
            diverged=diverged,
        )
        for name in metrics
    ]
    if family == "all":
        comparisons = corrected(comparisons)
    columns = shutil.get_terminal_size((0, 0)).columns
    text = render(comparisons, format, columns or DEFAULT_WIDTH, wrap=columns > 0)
    if target is not None:
        write_text(target, text + "\n")
    return text


def _names(text: str, key: str) -> list[str]:
    """Split names at commas."""
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise UserError(f"{key}={text}: a name is empty")
    if len(set(names)) < len(names):
        raise UserError(f"{key}={text}: a name is repeated")
    return names


def _directions(given: bool | str | None, metrics: Sequence[str]) -> dict[str, bool]:
    """Return whether smaller values are better, for the metrics for which the user says so."""
    if given is None or isinstance(given, bool):
        return {} if given is None else dict.fromkeys(metrics, given)
    names = _names(given, "lower_is_better")
    for name in names:
        if name not in metrics:
            raise UserError(f"lower_is_better={name}: not one of the metrics{did_you_mean_or_list(name, metrics)}")
    return dict.fromkeys(names, True)


def named_levels(text: str | None, key: str) -> dict[str, str]:
    """Parse `gate=none,registers=0` into a mapping."""
    return {} if text is None else dict(_assigned(item, key) for item in _names(text, key))


def _rows(frame: "pl.DataFrame", where: dict[str, str]) -> "pl.DataFrame":
    """Select the rows with the given levels."""
    for name, value in where.items():
        if name not in frame.columns:
            raise UserError(f"where={name}: no such column{did_you_mean_or_list(name, frame.columns)}")
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
        raise UserError(f"{key}={item}: must have the form NAME=VALUE")
    return name, value


def _amounts(text: str | None, key: str, metrics: Sequence[str]) -> dict[str, float]:
    """Parse a number for the only metric, or METRIC=X for each."""
    if text is None:
        return {}
    if "=" not in text and len(metrics) > 1:
        raise UserError(f"{key}={text}: metrics differ in their units; write {metrics[0]}={text},{metrics[1]}=X")
    given = dict(_assigned(item, key) for item in _names(text, key)) if "=" in text else {metrics[0]: text}
    amounts = {}
    for name, value in given.items():
        if name not in metrics:
            raise UserError(f"{key}={name}: not one of the metrics{did_you_mean_or_list(name, metrics)}")
        try:
            amounts[name] = float(value)
        except ValueError as error:
            raise UserError(f"{key}={value}: not a number") from error
    return amounts


def _target(out: str, results: str, overwrite: bool) -> Path:
    """Check the file to write: neither the table itself nor another file that exists."""
    target = Path(out)
    if not out or target.is_dir() or not target.parent.is_dir():
        raise UserError(f"out={out}: its folder does not exist, or it is itself a folder")
    if target.resolve() == Path(results).resolve():
        raise UserError(f"out={out}: this is the table itself; choose another file")
    if target.exists() and not overwrite:
        raise UserError(f"out={out}: already exists; choose another file or add --overwrite")
    if not is_rendered(target):
        refuse_foreign_file(target, key="out", command="compare")
    return target
