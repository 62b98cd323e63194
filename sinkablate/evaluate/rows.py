"""The rows of `evaluation.parquet`: one tidy table for all tasks."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

import polars as pl

BackboneName = Literal["model", "random", "pixels"]
"""The evaluated model, or a floor next to it: the same architecture with random weights, or raw pixels."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured number."""

    task: str
    """Name of the task, such as `knn`."""
    protocol: str = ""
    """How it was measured, such as `cls k=20`; the first protocol of a task is the one that tables show."""
    metric: str
    """Name of the number, such as `acc1`."""
    item: str = ""
    """The class, image or layer that the number is of; empty for the entire set."""
    seed: int | None = None
    """Seed of the probe; None if the task draws nothing."""
    value: float
    backbone: BackboneName = "model"
    """Set by the evaluation, not by the task."""


SCHEMA: dict[str, type[pl.DataType]] = {
    field.name: {"seed": pl.Int64, "value": pl.Float64}.get(field.name, pl.String) for field in fields(Row)
}


def table_of(rows: Iterable[Row]) -> pl.DataFrame:
    """Return rows as a table."""
    return pl.DataFrame([asdict(row) for row in rows], schema=SCHEMA)


def scalars(table: pl.DataFrame) -> dict[str, float]:
    """Return the numbers of the entire set by name, for `evaluation.json`, `compare` and `report`.

    `knn/acc1` is the mean over probe seeds under the first protocol of the task, and `knn/acc1/cls k=10` under another
    one. With several seeds, `linear/acc1_sd` is the sample standard deviation over them. Floors are named
    `knn/acc1@random` and `knn/acc1@pixels`.

    Args:
        table: Rows of any tasks; see `Row`.
    """
    numbers: dict[str, float] = {}
    first = {task: protocols[0] for task, protocols in protocols_of(table).items()}
    whole = table.filter(pl.col("item") == "")
    keys = ("task", "protocol", "metric", "backbone")
    for (task, protocol, metric, backbone), rows in whole.group_by(*keys, maintain_order=True):
        suffix = ("" if protocol == first[str(task)] else f"/{protocol}") + (
            "" if backbone == "model" else f"@{backbone}"
        )
        numbers[f"{task}/{metric}{suffix}"] = mean_of(rows["value"])
        if len(rows) > 1:
            numbers[f"{task}/{metric}_sd{suffix}"] = sd_of(rows["value"])
    return numbers


def mean_of(values: pl.Series) -> float:
    """Return the mean of a column; NaN if it is empty."""
    return float(values.to_numpy().mean()) if len(values) else float("nan")


def sd_of(values: pl.Series) -> float:
    """Return the sample standard deviation (n - 1) of a column; NaN for fewer than two values."""
    return float(values.to_numpy().std(ddof=1)) if len(values) > 1 else float("nan")


def protocols_of(table: pl.DataFrame) -> dict[str, Sequence[str]]:
    """Return the protocols of each task, in the order in which the task reports them."""
    pairs = table.select("task", "protocol").unique(maintain_order=True)
    protocols: dict[str, list[str]] = {}
    for task, protocol in pairs.iter_rows():
        protocols.setdefault(task, []).append(protocol)
    return dict(protocols)
