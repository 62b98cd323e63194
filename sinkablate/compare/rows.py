"""Read the columns of a table that a comparison uses, and refuse rows that cannot be told apart."""

from collections.abc import Sequence

import polars as pl

from sinkablate.compare.table import booleans, levels, numbers, require_columns
from sinkablate.errors import UserError


def read_rows(
    frame: pl.DataFrame,
    metric: str,
    factors: Sequence[str],
    pair_by: str | None,
    nested: str | None,
    image: str | None,
    diverged: str | None,
) -> tuple[pl.DataFrame, list[str]]:
    """Return the columns of a comparison under fixed names, and notes about them.

    The columns are `factor 0`, `factor 1`, ..., then `seed`, `nested` and `image` where they are used, `value` and
    `diverged`. Without `pair_by`, every row gets a seed of its own.

    Raises:
        UserError: A column does not exist or holds something else, or two rows describe the same run.
    """
    named = {"seed": pair_by, "nested": nested, "image": image}
    columns = {f"factor {index}": name for index, name in enumerate(factors)}
    columns |= {key: name for key, name in named.items() if name is not None}
    require_columns(
        frame,
        {
            "metric": [metric],
            "factors": list(factors),
            "diverged": [diverged] if diverged else None,
            **{key.replace("seed", "pair_by"): [name] for key, name in named.items() if name},
        },
    )
    data = {key: levels(frame, name).alias(key) for key, name in columns.items()}
    if pair_by is None:
        data["seed"] = pl.arange(len(frame), eager=True).cast(pl.String)
    elif (data["seed"] == "none").any():
        raise UserError(f"pair_by={pair_by}: no value in row {(data['seed'] == 'none').arg_true()[0] + 1}")
    data["value"] = numbers(frame, metric)
    data["diverged"] = booleans(frame, diverged) if diverged else pl.repeat(False, len(frame), eager=True)
    rows = pl.DataFrame([column.alias(key) for key, column in data.items()])
    notes = []
    if pair_by is not None:
        _refuse_duplicates(rows, columns)
    elif frame.is_duplicated().any():
        count = frame.is_duplicated().sum()
        notes.append(f"{count} rows equal another row in every column; each counts as a run")
    return rows, notes + [
        f"{name} has no value in {frame[name].null_count()} rows; they are taken as level none"
        for name in factors
        if frame[name].null_count()
    ]


def _refuse_duplicates(rows: pl.DataFrame, names: dict[str, str]) -> None:
    """Refuse two rows with equal factors, seed, nested seed and image."""
    duplicates = rows.group_by(list(names), maintain_order=True).len().filter(pl.col("len") > 1)
    if len(duplicates):
        first = duplicates.row(0, named=True)
        where = ", ".join(f"{name}={first[key]}" for key, name in names.items())
        more = f" (the first of {len(duplicates)} such groups)" if len(duplicates) > 1 else ""
        raise UserError(
            f"{first['len']} rows for {where}{more}; name the column that tells them apart: a factor, "
            "nested for seeds within a run, or image for images"
        )
