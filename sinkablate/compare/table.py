"""Read a tidy table from a file, and convert its columns to levels, numbers or Booleans."""

import codecs
import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from sinkablate.errors import UserError, first_line
from sinkablate.files.suggestions import did_you_mean_or_list

SEPARATORS = (",", ";", "\t")
"""Column separators; the one that splits the first line into the most columns is used."""
NO_VALUE = ("", "nan", "na", "n/a", "none", "null")
TRUE, FALSE = ("true", "1", "yes"), ("false", "0", "no", "")


def read_table(path: Path) -> pl.DataFrame:
    """Read a Parquet file, or a CSV file separated by commas, semicolons or tabs, whose columns are read as text.

    Raises:
        UserError: The file is missing, unreadable, empty, or of another kind, or two columns have the same name.
    """
    if not path.is_file():
        raise UserError(f"{path}: {'a folder, not a table' if path.is_dir() else 'no such file'}")
    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        elif path.suffix == ".csv":
            frame = _read_csv(path)
        else:
            raise UserError(f"{path}: a table must be a .csv or .parquet file")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        hint = (
            "; every row must have as many values as the first row has names"
            if isinstance(error, pl.exceptions.ComputeError) and path.suffix == ".csv"
            else ""
        )
        raise UserError(f"{path}: cannot be read: {first_line(error)}{hint}") from error
    if not len(frame):
        raise UserError(f"{path}: the table has no rows")
    return frame


def as_polars(frame: Any) -> pl.DataFrame:
    """Return a polars or pandas table as a polars one, without pyarrow, which `polars.from_pandas` requires.

    Raises:
        UserError: It is not a table, two columns have the same name, or it has no rows.
    """
    if not isinstance(frame, pl.DataFrame):
        if not hasattr(frame, "isna") or not hasattr(frame, "columns"):
            raise UserError(f"frame is a {type(frame).__name__}: expected a polars or pandas table")
        if not frame.columns.is_unique:
            repeated = frame.columns[frame.columns.duplicated()][0]
            raise UserError(f"frame: two columns are named {repeated}")
        columns = {
            str(name): frame[name].astype(object).where(~frame[name].isna(), None).tolist() for name in frame.columns
        }
        frame = pl.DataFrame(columns, strict=False)
    if not len(frame):
        raise UserError("frame: the table has no rows")
    return frame


def _read_csv(path: Path) -> pl.DataFrame:
    """Read a CSV file as columns of text; spaces around the names are removed."""
    text = _decoded(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark), [])))
    names = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
    if repeated is not None:
        problem = f"are named {repeated}" if repeated else "have no name; the first line must contain the names"
        raise UserError(f"{path}: two columns {problem}")
    frame = pl.read_csv(text.encode(), separator=separator, infer_schema=False, raise_if_empty=False)
    return frame.rename(dict(zip(frame.columns, names, strict=True))) if len(names) == len(frame.columns) else frame


def _decoded(path: Path) -> str:
    """Decode a text file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        UserError: The file has another encoding.
    """
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from None
    if "\0" in text:
        raise UserError(f"{path}: not text (it contains NUL bytes); save it as CSV in UTF-8")
    return text


def require_columns(frame: pl.DataFrame, keys: dict[str, Sequence[str] | None]) -> None:
    """Refuse a name that is not a column, or that two options share.

    Args:
        frame: The table.
        keys: Option -> the columns it names; None if it is not used.

    Raises:
        UserError: A name is not a column (the message suggests the closest one), or is used twice; or an option names
            no column.
    """
    used: dict[str, str] = {}
    for key, names in keys.items():
        if names is not None and not [*filter(None, names)]:
            raise UserError(f"{key}: is empty")
        for name in names or ():
            if name not in frame.columns:
                raise UserError(f"{key}={name}: no such column{did_you_mean_or_list(name, frame.columns)}")
            if name in used:
                raise UserError(f"{key}={name}: {used[name]} already names this column")
            used[name] = key


def level(text: str | None) -> str:
    """Return the canonical text of a level.

    Numbers are spelled in one way, Booleans become lower case, and a missing value becomes `none`.
    """
    text = (text or "").strip()
    if text.lower() in (*NO_VALUE, "true", "false"):
        return text.lower() if text.lower() in ("true", "false") else "none"
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


def levels(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column as levels, spelled as by `level`.

    Raises:
        UserError: Its values are lists or another nested type.
    """
    try:
        text = frame[name].cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"column {name}: holds {frame[name].dtype}, not names or numbers") from error
    spelled = {value: level(value) for value in text.unique().to_list()}
    return text.replace_strict(spelled, return_dtype=pl.String).alias(name)


def in_order(values: Sequence[str]) -> tuple[str, ...]:
    """Return distinct levels: numbers by size, names in order of appearance."""
    once = list(dict.fromkeys(values))
    try:
        return tuple(sorted(once, key=float))
    except ValueError:
        return tuple(once)


def numbers(frame: pl.DataFrame, metric: str) -> pl.Series:
    """Return a metric as numbers; missing values, NaN and infinity become null.

    Raises:
        UserError: A value is not a number (row 1 is the first below the heading), or no value is finite.
    """
    column = frame[metric]
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        text = pl.select(pl.when(text.str.to_lowercase().is_in(NO_VALUE)).then(None).otherwise(text)).to_series()
        column = text.cast(pl.Float64, strict=False)
        wrong = (text.is_not_null() & column.is_null()).arg_true()
        if len(wrong):
            value = str(text[int(wrong[0])])
            raise UserError(f"metric={metric}: not a number in row {wrong[0] + 1}: {value!r}{_remedy(value)}")
    elif not column.dtype.is_numeric() and column.dtype != pl.Null:
        raise UserError(f"metric={metric}: not a number; the column holds {column.dtype}")
    values = column.cast(pl.Float64)
    values = pl.select(pl.when(values.is_finite()).then(values)).to_series().alias(metric)
    if values.null_count() == len(values):
        raise UserError(f"metric={metric}: no row has a finite value")
    return values


def _remedy(value: str) -> str:
    """Return the end of a message that says how to write a number in another notation."""
    if re.fullmatch(r"[+-]?\d+,\d+", value):
        return f"; write decimals with a point, {value.replace(',', '.')}"
    if re.fullmatch(r"[+-]?[\d.,]+\s*%", value):
        return "; remove the percent sign"
    return ""


def booleans(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column as Booleans (true/false, 1/0, yes/no); a missing value counts as false.

    Raises:
        UserError: A value is none of these.
    """
    text = frame[name].cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
    text = text.str.replace(r"^([01])\.0$", "$1").replace({"nan": "", "none": "", "null": ""})
    wrong = (~text.is_in([*TRUE, *FALSE])).arg_true()
    if len(wrong):
        raise UserError(f"{name}: neither true nor false in row {wrong[0] + 1}: {frame[name][int(wrong[0])]!r}")
    return text.is_in(TRUE).alias(name)
