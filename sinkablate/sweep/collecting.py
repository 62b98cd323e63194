"""Collect the results of a sweep in one tidy table with one row per cell, whatever its state."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.run.cells import Cell, short_names
from sinkablate.run.directory import diverged
from sinkablate.run.evaluations import TREATMENT, UNTREATED, evaluation_numbers, treatments_of
from sinkablate.run.reading import READ_ERRORS, table_of_rows
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import State, state_of, summary_of

LEARNING_RATE, LOSS, SENSITIVITY = "model.optim.lr", "val/loss", "stability/lr_sensitivity"
"""The swept key and the metric from which the last column is computed; see `_with_sensitivity`."""
FIRST_COLUMNS = ("run", "cell", "run_dir", "status")
NOT_METRICS = {"name", "versions", "git_revision", "rules", "device"}


def collect(sweep: Sweep, root: Path) -> pl.DataFrame:
    """Return one row per cell: run, cell, run_dir, status, the factors under their short names, diverged, metrics.

    The metrics are those of its summary and, if it has been evaluated, of its evaluation, such as `knn/acc1`. They are
    empty for a cell without a result. A diverged cell, whose loss became NaN or infinite, has a result. A sweep over
    learning rates also has the column `stability/lr_sensitivity`. A cell that has also been evaluated with test-time
    registers has another row for each such evaluation, with the metrics of that evaluation only; the column
    `test_time_registers` tells the rows of a cell apart.

    Raises:
        UserError: A summary cannot be read, or an evaluation belongs to another run.
    """
    table = table_of_rows([row for cell in sweep.cells for row in _rows(cell, root)])
    factors = [name for name in (*sweep.cells[0].short_factors, TREATMENT) if name in table.columns]
    if TREATMENT in factors:
        table = table.with_columns(pl.col(TREATMENT).fill_null(UNTREATED))
    if len(sweep.parameters.get(LEARNING_RATE, ())) > 1 and LOSS in table.columns:
        rate = short_names(list(sweep.parameters))[LEARNING_RATE]
        table = _with_sensitivity(table, [name for name in factors if name != rate])
    first = [*FIRST_COLUMNS, *factors, "diverged"]
    return table.select(*first, *sorted(name for name in table.columns if name not in first))


def _with_sensitivity(table: pl.DataFrame, others: Sequence[str]) -> pl.DataFrame:
    """Add how much the final loss depends on the learning rate: its mean over the rates minus the lowest one.

    Every cell has the value of the cells that differ from it in the learning rate only. It is null if one of them has
    no finite loss, for example because it diverged.

    Args:
        table: One row per cell.
        others: Names of the other factors.
    """
    loss = pl.col(LOSS).cast(pl.Float64)
    spread = pl.when(loss.is_finite().fill_null(value=False).all()).then(loss.mean() - loss.min())
    return table.with_columns((spread.over(list(others)) if others else spread).alias(SENSITIVITY))


def is_collected(path: Path) -> bool:
    """Return whether a file is a table that `collect` wrote, which it may replace."""
    try:
        scan = pl.scan_csv if path.suffix == ".csv" else pl.scan_parquet
        return tuple(scan(path).collect_schema().names()[: len(FIRST_COLUMNS)]) == FIRST_COLUMNS
    except READ_ERRORS:
        return False


def _rows(cell: Cell, root: Path) -> list[dict[str, Any]]:
    """Return the row of one cell, and a row for each number of test-time registers that it was evaluated with."""
    row, run_dir = _row(cell, root), root / cell.id
    shared = {name: row[name] for name in (*FIRST_COLUMNS, *cell.short_factors, "diverged")}
    treated = [(name, evaluation_numbers(run_dir, name)) for name in treatments_of(run_dir)]
    return [row, *(shared | {TREATMENT: name} | numbers for name, numbers in treated if numbers)]


def _row(cell: Cell, root: Path) -> dict[str, Any]:
    """Return the row of one cell."""
    run_dir = root / cell.id
    state = state_of(run_dir)
    factors = {name: _typed(value) for name, value in cell.short_factors.items()}
    row = {
        "run": cell.label,
        "cell": cell.id,
        "run_dir": str(run_dir),
        "status": str(state),
        **factors,
        "diverged": diverged(run_dir),
    }
    if state is not State.DONE:
        return row
    summary = summary_of(run_dir)
    metrics = {
        key: value
        for key, value in summary.items()
        if key not in NOT_METRICS and isinstance(value, int | float | str | None)
    }
    metrics |= evaluation_numbers(run_dir)
    return row | {"run": summary.get("name", cell.label)} | {k: v for k, v in metrics.items() if k not in row}


def _typed(value: str) -> int | float | str:
    """Convert a value to a number if it is one."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
