"""Files that runs leave, read whole; a damaged one is an error that names it."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from sinkablate.errors import UserError


def read_parquet(path: Path, needs: tuple[str, ...], columns: list[str] | None = None) -> pl.DataFrame:
    """One table of ours.

    Args:
        path: The file.
        needs: Columns it has if it is the table it should be.
        columns: Read only these.

    Raises:
        UserError: It cannot be read, or lacks a column.
    """
    try:
        table = pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a table of sinkablate ({first_line(error)})") from None
    for name in needs:
        if name not in table.columns:
            raise UserError(f"{path}: not a table of sinkablate (it has no column {name})")
    return table


def read_csv(path: Path, content: bytes | None = None) -> pl.DataFrame:
    """A table of ours, of the file or of its content.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return pl.read_csv(path if content is None else content, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: damaged, or not a table of sinkablate ({first_line(error)})") from None


def read_metrics(path: Path) -> pl.DataFrame | None:
    """Rows of metrics.csv; the last line of a run that was killed while it wrote is left out if it is not whole."""
    if not path.exists():
        return None
    whole = path.read_bytes().rpartition(b"\n")
    if not whole[0]:
        return None
    table = read_csv(path, whole[0] + whole[1])
    if "step" not in table.columns:
        raise UserError(f"{path}: damaged, it has no column step")
    return table.with_columns(pl.col("step").cast(pl.Int64)).sort("step")


def read_json(path: Path) -> dict[str, Any] | None:
    """Content of a JSON file, None where there is none."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not JSON ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not JSON of sinkablate (a {type(content).__name__}, not an object)")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration.

    Raises:
        UserError: It is none.
    """
    try:
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not YAML ({first_line(error)})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: not the configuration of a run")
    return content


def first_line(error: Exception) -> str:
    """What went wrong, briefly."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
