"""Files that runs leave, read whole; a damaged one is an error that names it."""

import json
import math
import zipfile
import zlib
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

DAMAGES = (pl.exceptions.PolarsError, OSError, ValueError, EOFError, MemoryError, NotImplementedError, RuntimeError)
"""What the readers of tables and arrays raise for files that are not whole; polars panics as well."""
MOST_BYTES = 256 << 20
"""Size of the largest JSON or YAML file that is read."""
MOST_VALUES = 100_000
"""A configuration holds fewer values."""


def read_parquet(path: Path, needs: tuple[str, ...], columns: list[str] | None = None) -> pl.DataFrame:
    """One table of ours.

    Args:
        path: The file.
        needs: Columns it has if it is the table it should be.
        columns: Read only these.

    Raises:
        UserError: It cannot be read, or is another table.
    """
    try:
        if not path.is_file():
            raise IsADirectoryError("a folder, not a file")
        table = pl.read_parquet(path, columns=columns)
    except (*DAMAGES, pl.exceptions.PanicException) as error:
        raise UserError(f"{path}: damaged, or not a table of sinkablate ({first_line(error)})") from None
    check_table(path, table, needs)
    return table


def read_csv(path: Path, content: bytes | None = None) -> pl.DataFrame:
    """A table of ours, of the file or of its content.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return pl.read_csv(path.read_bytes() if content is None else content, infer_schema_length=None)
    except (*DAMAGES, pl.exceptions.PanicException) as error:
        raise UserError(f"{path}: damaged, or not a table of sinkablate ({first_line(error)})") from None


def read_metrics(path: Path) -> pl.DataFrame | None:
    """Rows of metrics.csv; the last line of a run that was killed while it wrote is left out if it is not whole."""
    if not path.exists():
        return None
    try:
        whole = path.read_bytes().rpartition(b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if not whole[0]:
        return None
    table = read_csv(path, whole[0] + whole[1])
    if not len(table):
        return None
    empty = [name for name, kind in table.schema.items() if kind == pl.String and table[name].is_null().all()]
    table = table.with_columns(pl.col(name).cast(pl.Float64) for name in empty)
    check_table(path, table, ("step",))
    return table.sort("step")


def read_arrays(path: Path, names: tuple[str, ...]) -> list[NDArray[Any]]:
    """Arrays of an .npz file; pickled objects are refused.

    Raises:
        UserError: It cannot be read, or lacks one.
    """
    found = read_all_arrays(path)
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise UserError(f"{path}: damaged, it has no array {missing}")
    return [found[name] for name in names]


def read_all_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Every array of an .npz file; pickled objects are refused.

    Raises:
        UserError: It cannot be read.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored.items())
    except (*DAMAGES, AttributeError, zipfile.BadZipFile, zlib.error) as error:  # AttributeError: a bare .npy array
        raise UserError(f"{path}: damaged ({first_line(error)})") from None


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file, None where there is none."""
    if not path.exists():
        return None
    try:
        content = json.loads(_text(path), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not JSON of sinkablate (a {type(content).__name__}, not an object)")
    return content


def _whole(digits: str) -> int:
    """A whole number that a float can hold.

    Raises:
        ValueError: It is larger than any number of ours.
    """
    if len(digits) > 300:
        raise ValueError("a number of more than 300 digits")
    return int(digits)


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration; tags that would make Python objects are refused.

    Raises:
        UserError: It is none.
    """
    try:
        content = yaml.load(_text(path), LOADER)
        size = _expanded_size(content, {})
    except (ValueError, RecursionError, TypeError, yaml.YAMLError) as error:  # TypeError: a key that is a list
        raise UserError(f"{path}: not YAML ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the configuration of a run")
    if size > MOST_VALUES:
        raise UserError(f"{path}: more than {MOST_VALUES:,} values: not the configuration of a run")
    return with_current_names(content)


def _text(path: Path) -> str:
    """Content of a text file.

    Raises:
        UserError: It cannot be read, is no text, or is larger than any of ours.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than {MOST_BYTES >> 20} MiB: not a file of sinkablate")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({first_line(error)})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _expanded_size(node: Any, sizes: dict[int, float]) -> float:
    """Number of values with every reference written out: a small YAML file can stand for billions, or refer to itself.

    Args:
        node: Content of the file.
        sizes: Of the nodes seen so far, by id; infinite for those that are still being counted.
    """
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf
        sizes[id(node)] = 1 + sum(
            _expanded_size(child, sizes) for child in (node.values() if isinstance(node, dict) else node)
        )
    return sizes[id(node)]
