"""What the files of a run must hold for a report to draw them: each check names the file and what is wrong with it."""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.errors import UserError

LIMITS = {"nop_max": 0.2, "broadcast_min": 0.5, "rank_max": 1.5}
"""Thresholds that divide the atlas, and their values where a run says none."""
LABELS = ("nop", "broadcast", "other")
TEXTS = ("token_type", "rule")
"""Columns of names; all others hold numbers."""
PLACES = ("step", "block", "head", "images", "column")
"""Columns of whole numbers from 0."""
LARGEST = 2**53
TYPES = ("cls", "register", "patch", "null", "kv_bias")
"""Of tokens."""
METRICS = ("val/", "train/", "toy/", "probe/", "stability/", "gate/")
"""Beginnings of the numbers a run ends with."""


def check_table(path: Path, table: pl.DataFrame, needs: tuple[str, ...]) -> None:
    """A table of ours: the columns it needs, numbers where there should be numbers, and at least one row.

    Raises:
        UserError: As above.
    """
    for name in needs:
        if name not in table.columns:
            raise UserError(f"{path}: not a table of sinkablate (it has no column {name})")
    if not len(table):
        raise UserError(f"{path}: damaged, it has no rows")
    for name, kind in table.schema.items():
        if name in TEXTS:
            right = kind == pl.String
        elif name in PLACES:
            whole = table[name].cast(pl.Int64, strict=False) if kind.is_integer() else pl.Series([None])
            right = whole.null_count() == 0 and whole.is_between(0, LARGEST).all()
        else:
            right = kind.is_numeric() or kind == pl.Null
        if not right:
            raise UserError(f"{path}: damaged, the column {name} holds {_sample(table[name])}")


def _sample(column: pl.Series) -> str:
    """What a column holds, for a message."""
    return f"{column.dtype}" + (f", such as {str(column.drop_nulls()[0])[:40]!r}" if column.drop_nulls().len() else "")


def check_heads(path: Path, table: pl.DataFrame) -> None:
    """A row for every block and head, and the counts of every rule that has a frequency.

    Raises:
        UserError: As above.
    """
    check_grid(path, table, ("block", "head"))
    unknown = set(table["token_type"].drop_nulls()) - set(TYPES)
    if unknown:
        raise UserError(f"{path}: damaged, there are no tokens of type {str(min(unknown))[:40]!r}")
    if not (table["images"] > 0).all():
        raise UserError(f"{path}: damaged, a head was measured on no image")
    for name in table.columns:
        rule, ending, rest = name.rpartition("_frequency")
        for count in (f"{rule}_{label}" for label in (*LABELS, "undefined") if ending and not rest):
            if count not in table.columns:
                raise UserError(f"{path}: not a table of sinkablate (it has no column {count})")
            if not table[count].dtype.is_integer() or table[count].null_count():
                raise UserError(f"{path}: damaged, the column {count} holds {_sample(table[count])}")


def check_grid(path: Path, table: pl.DataFrame, names: tuple[str, ...]) -> None:
    """One row for every combination of the values of some columns.

    Raises:
        UserError: A combination is missing, or occurs twice.
    """
    whole = 1
    for name in names:
        whole *= table[name].n_unique()
    if len(table) != whole or table.select(names).n_unique() != whole:
        raise UserError(f"{path}: damaged, it does not hold one row for every {' and '.join(names)}")


def check_sensitivity(path: Path, table: pl.DataFrame) -> None:
    """Of every rule, a row with the rule's own thresholds.

    Raises:
        UserError: There is none.
    """
    for rule in table["rule"].unique().to_list():
        if not len(table.filter((pl.col("rule") == rule) & (pl.col("steps") == 0))):
            raise UserError(f"{path}: damaged, the rule {rule} has no row with its own thresholds")


CHECKS: dict[str, Callable[[Path, pl.DataFrame], None]] = {
    "heads": check_heads,
    "blocks": lambda path, table: check_grid(path, table, ("block",)),
    "sensitivity": check_sensitivity,
}


def check_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Numbers, counts and thresholds of a summary.json or diagnosis.json.

    Raises:
        UserError: Names the value that is none.
    """
    for name, value in summary.items():
        if (name.startswith(METRICS) and name.count("/") == 1) or name in ("step", "num_tokens", "num_prefix_tokens"):
            _require_number(path, name, value)
    for name in ("counts", "first_block"):
        _check_counts(path, name, summary.get(name))
    check_limits(path, "thresholds.", _group(path, "thresholds", summary.get("thresholds")))


def check_limits(path: Path, prefix: str, thresholds: Mapping[str, Any]) -> None:
    """The thresholds that are drawn.

    Raises:
        UserError: One is not a number.
    """
    for name in LIMITS:
        _require_number(path, prefix + name, thresholds.get(prefix + name, thresholds.get(name)))


def _check_counts(path: Path, name: str, counts: Any) -> None:
    """Events by rule, label and token type."""
    for rule, found in _group(path, name, counts).items():
        types = _group(path, f"{name}.{rule}", found).get("by_token_type")
        for label in LABELS:
            kinds = _group(path, f"{name}.{rule}.by_token_type", types).get(label)
            where = f"{name}.{rule}.by_token_type.{label}"
            if kinds is None:
                raise UserError(f"{path}: damaged, it has no {where}")
            for kind, value in _group(path, where, kinds).items():
                _require_number(path, f"{where}.{kind}", value, lacking=False)


def _group(path: Path, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping | None):
        raise UserError(f"{path}: damaged, {name}={str(value)[:40]!r} is not a group of values")
    return value or {}


def _require_number(path: Path, name: str, value: Any, *, lacking: bool = True) -> None:
    if value is None and lacking:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not isfinite(value))
    ):
        raise UserError(f"{path}: damaged, {name}={str(value)[:40]!r} is not a number")
