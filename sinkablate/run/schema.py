"""Checks of the content of a run's files before they are drawn; each error names the file and what is wrong."""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.errors import UserError

LIMITS = {"nop_max": 0.2, "broadcast_min": 0.5, "rank_max": 1.5}
"""Thresholds that divide the atlas, and their defaults."""
LABELS = ("nop", "broadcast", "other")
TEXTS = ("token_type", "rule", "task", "protocol", "metric", "item", "backbone")
"""Columns of names; all other columns contain numbers."""
INTEGERS = ("step", "block", "head", "images", "column")
"""Columns of nonnegative integers."""
MAX_INTEGER = 2**53
TYPES = ("cls", "register", "patch", "null", "kv_bias", "bos", "sep", "punctuation", "word")
"""Types of tokens."""
FINAL_TOKENS, FINAL_PATCH_TOKENS = "final tokens", "final patch tokens"
"""The tokens whose change is the effect of an edit: those of texts and of toys, and those of images."""
METRICS = ("val/", "train/", "toy/", "probe/", "stability/", "gate/")
"""Prefixes of the final numbers of a run."""


def final_tokens(summary: Mapping[str, Any]) -> str:
    """Return what the last tokens of a model are called, from the summary of its diagnosis or intervention."""
    reads_images = "texts" not in summary and isinstance(summary.get("preprocessing"), Mapping)
    return FINAL_PATCH_TOKENS if reads_images else FINAL_TOKENS


def check_table(path: Path, table: pl.DataFrame, needs: tuple[str, ...]) -> None:
    """Check a table: it has the necessary columns, columns have the right types, and there is at least one row.

    Args:
        path: The file, for messages.
        table: Its content.
        needs: Columns that the table must have.

    Raises:
        UserError: The table fails a check.
    """
    for name in needs:
        if name not in table.columns:
            raise UserError(f"{path}: not a table written by sinkablate (the column {name} is missing)")
    if not len(table):
        raise UserError(f"{path}: damaged (the table is empty)")
    for name, kind in table.schema.items():
        if name in TEXTS:
            valid = kind == pl.String
        elif name in INTEGERS:
            integers = table[name].cast(pl.Int64, strict=False) if kind.is_integer() else pl.Series([None])
            valid = integers.null_count() == 0 and integers.is_between(0, MAX_INTEGER).all()
        else:
            valid = kind.is_numeric() or kind == pl.Null
        if not valid:
            raise UserError(f"{path}: damaged (the column {name} contains {_sample(table[name])})")


def _sample(column: pl.Series) -> str:
    """Type of a column and one of its values, for a message."""
    return f"{column.dtype}" + (f", such as {str(column.drop_nulls()[0])[:40]!r}" if column.drop_nulls().len() else "")


def check_heads(path: Path, table: pl.DataFrame) -> None:
    """Check a table of heads: one row for every block and head, and the counts of every rule that has a frequency.

    Raises:
        UserError: The table fails a check.
    """
    check_grid(path, table, ("block", "head"))
    unknown = set(table["token_type"].drop_nulls()) - set(TYPES)
    if unknown:
        raise UserError(f"{path}: damaged ({str(min(unknown))[:40]!r} is not a token type)")
    if not (table["images"] > 0).all():
        raise UserError(f"{path}: damaged (a head was measured on 0 images)")
    for name in table.columns:
        rule, ending, rest = name.rpartition("_frequency")
        for count in (f"{rule}_{label}" for label in (*LABELS, "undefined") if ending and not rest):
            if count not in table.columns:
                raise UserError(f"{path}: not a table written by sinkablate (the column {count} is missing)")
            if not table[count].dtype.is_integer() or table[count].null_count():
                raise UserError(f"{path}: damaged (the column {count} contains {_sample(table[count])})")


def check_grid(path: Path, table: pl.DataFrame, names: tuple[str, ...]) -> None:
    """Check that a table has exactly one row for every combination of the values of some columns.

    Raises:
        UserError: A combination is missing, or occurs twice.
    """
    combinations = 1
    for name in names:
        combinations *= table[name].n_unique()
    if len(table) != combinations or table.select(names).n_unique() != combinations:
        raise UserError(f"{path}: damaged (it does not contain exactly one row for every {' and '.join(names)})")


def check_sensitivity(path: Path, table: pl.DataFrame) -> None:
    """Check that every rule has a row with its own thresholds.

    Raises:
        UserError: The row is missing.
    """
    for rule in table["rule"].unique().to_list():
        if not len(table.filter((pl.col("rule") == rule) & (pl.col("steps") == 0))):
            raise UserError(f"{path}: damaged (the rule {rule} has no row with its own thresholds)")


WORDS = ("toy/label", "toy/task")
"""Entries of a summary under a metric's prefix that are not numbers."""
CHECKS: dict[str, Callable[[Path, pl.DataFrame], None]] = {
    "heads": check_heads,
    "blocks": lambda path, table: check_grid(path, table, ("block",)),
    "sensitivity": check_sensitivity,
}


def check_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Check the numbers, counts and thresholds of a summary.json or diagnosis.json.

    Raises:
        UserError: A value is not a number.
    """
    for name, value in summary.items():
        if name in WORDS:
            continue
        if (name.startswith(METRICS) and name.count("/") == 1) or name in ("step", "num_tokens", "num_prefix_tokens"):
            _require_number(path, name, value)
    for name in ("counts", "first_block"):
        _check_counts(path, name, summary.get(name))
    check_limits(path, "thresholds.", _group(path, "thresholds", summary.get("thresholds")))


def check_limits(path: Path, prefix: str, thresholds: Mapping[str, Any]) -> None:
    """Check the thresholds that are drawn.

    Raises:
        UserError: A threshold is not a number.
    """
    for name in LIMITS:
        _require_number(path, prefix + name, thresholds.get(prefix + name, thresholds.get(name)))


def _check_counts(path: Path, name: str, counts: Any) -> None:
    """Check the number of events by rule, label and token type."""
    for rule, values in _group(path, name, counts).items():
        types = _group(path, f"{name}.{rule}", values).get("by_token_type")
        for label in LABELS:
            kinds = _group(path, f"{name}.{rule}.by_token_type", types).get(label)
            where = f"{name}.{rule}.by_token_type.{label}"
            if kinds is None:
                raise UserError(f"{path}: damaged ({where} is missing)")
            for token_type, value in _group(path, where, kinds).items():
                _require_number(path, f"{where}.{token_type}", value, optional=False)


def _group(path: Path, name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping | None):
        raise UserError(f"{path}: damaged ({name}={str(value)[:40]!r} is not a mapping)")
    return value or {}


def _require_number(path: Path, name: str, value: Any, *, optional: bool = True) -> None:
    if value is None and optional:
        return
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not isfinite(value))
    ):
        raise UserError(f"{path}: damaged ({name}={str(value)[:40]!r} is not a number)")
