"""Reads the files of runs; a damaged file is an error that names it."""

import json
import math
import zipfile
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from sinkablate.config.renames import with_current_names
from sinkablate.errors import UserError, first_line
from sinkablate.files.strict_yaml import LOADER
from sinkablate.run.schema import check_table

READ_ERRORS = (pl.exceptions.PolarsError, OSError, ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError)
"""Exceptions that the readers of tables and arrays raise for damaged files; polars also panics."""
MAX_BYTES = 256 << 20
"""Size limit of JSON and YAML files."""
MAX_VALUES = 100_000
"""Limit of the number of values in a configuration."""


def read_parquet(path: Path, needs: tuple[str, ...], columns: list[str] | None = None) -> pl.DataFrame:
    """Read a table that this package wrote.

    Args:
        path: The file.
        needs: Columns that the table must have.
        columns: Read only these columns.

    Raises:
        UserError: The file cannot be read, or contains another table.
    """
    try:
        if not path.is_file():
            raise IsADirectoryError("not a file")
        table = pl.read_parquet(path, columns=columns)
    except (*READ_ERRORS, pl.exceptions.PanicException) as error:
        raise UserError(f"{path}: damaged, or not a table written by sinkablate ({first_line(error)})") from None
    check_table(path, table, needs)
    return table


def read_csv(path: Path, content: bytes | None = None) -> pl.DataFrame:
    """Read a CSV table that this package wrote.

    Args:
        path: The file.
        content: Its content, if it has been read already.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        return pl.read_csv(path.read_bytes() if content is None else content, infer_schema_length=None)
    except (*READ_ERRORS, pl.exceptions.PanicException) as error:
        raise UserError(f"{path}: damaged, or not a table written by sinkablate ({first_line(error)})") from None


def read_metrics(path: Path) -> pl.DataFrame | None:
    """Read metrics.csv, without the last line if it is incomplete because the run was killed; None if it is empty."""
    if not path.exists():
        return None
    try:
        lines, newline, _ = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not lines:
        return None
    table = read_csv(path, lines + newline)
    if not len(table):
        return None
    empty = [name for name, kind in table.schema.items() if kind == pl.String and table[name].is_null().all()]
    table = table.with_columns(pl.col(name).cast(pl.Float64) for name in empty)
    check_table(path, table, ("step",))
    return table.sort("step")


def table_of_rows(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return rows as a table with every column that occurs in one of them; values that a row lacks are null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: pl.Series(name, [row.get(name) for row in rows], strict=False) for name in columns})


def read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """Read arrays of an .npz file by name; pickled objects are refused.

    Raises:
        UserError: The file cannot be read, or lacks an array.
    """
    arrays = read_all_arrays(path)
    require_arrays(path, arrays, names)
    return [arrays[name] for name in names]


def require_arrays(path: Path, arrays: Collection[str], names: Collection[str]) -> None:
    """Refuse an .npz file that lacks an array.

    Raises:
        UserError: An array is missing; the message names the file and the first one.
    """
    missing = next((name for name in names if name not in arrays), None)
    if missing is not None:
        raise UserError(f"{path}: damaged (the array {missing} is missing)")


def read_all_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an .npz file; pickled objects are refused.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored.items())
    except (*READ_ERRORS, AttributeError, zipfile.BadZipFile, zlib.error) as error:  # AttributeError: a bare .npy array
        raise UserError(f"{path}: damaged ({first_line(error)})") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON file; None if it does not exist.

    Raises:
        UserError: The file cannot be read, or does not contain a JSON object.
    """
    if not path.exists():
        return None
    try:
        content = json.loads(_text(path), parse_int=_parse_int)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON file written by sinkablate (a {type(content).__name__}, not an object)")
    return content


def _parse_int(digits: str) -> int:
    """Parse an integer that fits into a float.

    Raises:
        ValueError: It is larger than any number that this package writes.
    """
    if len(digits) > 300:
        raise ValueError("a number with more than 300 digits")
    return int(digits)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration; YAML tags that would create Python objects are refused.

    Raises:
        UserError: The file cannot be read, or is not a configuration.
    """
    try:
        content = yaml.load(_text(path), LOADER)
        size = _expanded_size(content, {})
    except (ValueError, RecursionError, TypeError, yaml.YAMLError) as error:  # TypeError: a key is a list
        raise UserError(f"{path}: not YAML ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the configuration of a run")
    if size > MAX_VALUES:
        raise UserError(f"{path}: more than {MAX_VALUES:,} values, so it is not the configuration of a run")
    return with_current_names(content)


def _text(path: Path) -> str:
    """Read a text file.

    Raises:
        UserError: The file cannot be read, is not text, or exceeds the size limit.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES >> 20} MiB, so it was not written by sinkablate")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({first_line(error)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _expanded_size(node: Any, sizes: dict[int, float]) -> float:
    """Number of values with all YAML aliases expanded; a small file can expand to billions, or contain itself.

    Args:
        node: Content of the file.
        sizes: Sizes of the nodes visited so far, by id; infinite for nodes that are still being counted.
    """
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        sizes[id(node)] = 1 + sum(
            _expanded_size(child, sizes) for child in (node.values() if isinstance(node, dict) else node)
        )
    return sizes[id(node)]
