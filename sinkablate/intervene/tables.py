"""Aggregate the rows of an intervention: per head and edit, per class and edit, and to validate the labels."""

from math import nan
from typing import Any

import numpy as np
import polars as pl

from sinkablate.config import SelectionConfig
from sinkablate.diagnostics.counting import counted
from sinkablate.intervene.edits import all_edits, edit_named, position_of
from sinkablate.intervene.selection import CLASSES
from sinkablate.intervene.validation import DRAWS, LEVEL, Floats, over_blocks, validate, weighted_median

MEDIANS = (
    "effect",
    "common_share",
    "donor_cosine",
    "head_change",
    "local_size",
    "mass",
    "entropy",
    "token_norm",
    "ratio_out",
)
JUDGED = ("kl", "agreement", "top1", "top1_edited", "cross_entropy", "cross_entropy_edited", "loss", "loss_edited")
"""Columns with the effect on a classifier's predictions or a toy's error; tables contain their means."""
TEXTS = {"image": pl.String, "edit": pl.String, "donor": pl.String, "label": pl.String, "token_type": pl.String}
NUMBERS = {
    "place": pl.Int64,
    "number": pl.Int64,
    "block": pl.Int64,
    "head": pl.Int64,
    "changed_head": pl.Int64,
    "sink_idx": pl.Int64,
    "event": pl.Boolean,
}
KEYS = ["block", "head", "edit"]
NAMES = [label.name.lower() for label in CLASSES]


def row_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return one row per image, head and edit; an empty table has these columns, too.

    `head` is null for edits of a pathway. Columns of `JUDGED` exist if the rows have them.
    """
    judged = [name for name in JUDGED if rows and name in rows[0]]
    schema = {
        "place": pl.Int64,
        "image": pl.String,
        "number": pl.Int64,
        "block": pl.Int64,
        "head": pl.Int64,
        "edit": pl.String,
        **TEXTS,
        **NUMBERS,
        **dict.fromkeys((*MEDIANS, *judged), pl.Float64),
    }
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return _with_method(table.with_columns(pl.col("head", "changed_head").replace(-1, None)).drop("place"))


def head_table(
    rows: pl.DataFrame, classes: dict[tuple[int, int], str], config: SelectionConfig, *, everywhere: bool = False
) -> pl.DataFrame:
    """Return one row per block, head and edit.

    `class` is the head's most common label, `class_events` the number of its events with this label, and `counts`
    whether there are enough of them. Medians are over these events, or over all edited images for a head without a
    class or with `everywhere`; the interval of `effect` is from a bootstrap over images.
    """
    table_rows = []
    for (block, head, edit), group in sorted(rows.group_by(KEYS), key=lambda item: _order(item[0])):
        name = classes.get((block, head), "none") if head is not None else "pathway"
        labeled = group.filter(pl.col("label") == name)
        of_class = labeled if name in NAMES and not everywhere else group
        if not len(of_class):  # the edit was not possible on any event of the head's class
            continue
        effect = of_class["effect"].to_numpy()
        low, high = _image_bootstrap(effect)
        table_rows.append(
            {
                "block": block,
                "head": head,
                "edit": edit,
                "class": name,
                "images": len(group),
                "class_events": len(labeled) if name in NAMES else 0,
                "counts": name in NAMES and len(labeled) >= config.min_class_events,
                **{column: _median(of_class[column].to_numpy()) for column in MEDIANS},
                "effect_low": low,
                "effect_high": high,
                **{column: of_class[column].mean() for column in JUDGED if column in of_class.columns},
            }
        )
    schema: dict[str, Any] = {
        "block": pl.Int64,
        "head": pl.Int64,
        "edit": pl.String,
        "class": pl.String,
        "images": pl.Int64,
        "class_events": pl.Int64,
        "counts": pl.Boolean,
    }
    numbers = [*MEDIANS, "effect_low", "effect_high", *(name for name in JUDGED if name in rows.columns)]
    return _with_method(pl.DataFrame(table_rows, schema=schema | dict.fromkeys(numbers, pl.Float64), orient="row"))


def later_heads(heads: pl.DataFrame, depth: int) -> pl.DataFrame:
    """Return the heads of the blocks that count (`counted`) in a model of `depth` blocks."""
    return heads.filter(pl.col("block").is_in(np.flatnonzero(counted(range(depth))).tolist()))


def class_table(heads: pl.DataFrame, depth: int) -> pl.DataFrame:
    """Return one row per class and edit: medians over heads with enough events, with a bootstrap over blocks.

    The heads of block 0 form separate classes, unless the model has only one block.
    """
    if depth > 1:
        first = (pl.col("block") == 0) & (pl.col("class") != "pathway")
        heads = heads.with_columns(pl.when(first).then(pl.col("class") + ", block 0").otherwise("class").alias("class"))
    columns = ("effect", "common_share", "donor_cosine", "head_change", *(c for c in JUDGED if c in heads.columns))
    table_rows = []
    counted = heads.filter(pl.col("counts") | (pl.col("class") == "pathway"))
    for (name, edit), group in sorted(
        counted.group_by(["class", "edit"]), key=lambda item: (item[0][0], position_of(item[0][1]))
    ):
        blocks = group["block"].to_numpy()
        table_rows.append(
            {
                "class": name,
                "edit": edit,
                "heads": len(group),
                "blocks": len(np.unique(blocks)),
                **{
                    key: value
                    for column in columns
                    for key, value in _block_bootstrap(blocks, group[column].to_numpy(), column).items()
                },
            }
        )
    schema: dict[str, Any] = {"class": pl.String, "edit": pl.String, "heads": pl.Int64, "blocks": pl.Int64}
    schema |= {f"{column}{end}": pl.Float64 for column in columns for end in ("", "_low", "_high")}
    return _with_method(pl.DataFrame(table_rows, schema=schema, orient="row"))


def validation_table(heads: pl.DataFrame, depth: int) -> pl.DataFrame:
    """Return one row per edit of a head, with the results of `validate`."""
    counted = later_heads(heads.filter("counts"), depth)
    edits = [edit for edit in heads["edit"].unique(maintain_order=True) if not edit_named(edit).of_pathway]
    empty = heads.clear()
    rows = [{"edit": edit, **validate(counted.filter(pl.col("edit") == edit))} for edit in edits]
    schema = {
        "edit": pl.String,
        **{name: pl.Int64 if isinstance(value, int) else pl.Float64 for name, value in validate(empty).items()},
    }
    return _with_method(pl.DataFrame(rows, schema=schema, orient="row"))


def _with_method(table: pl.DataFrame) -> pl.DataFrame:
    """Insert the column `method`, the literature's name for each edit, after `edit`."""
    methods = {edit.name: edit.method for edit in all_edits()}
    column = table["edit"].replace_strict(methods, return_dtype=pl.String).alias("method")
    return table.insert_column(table.columns.index("edit") + 1, column)


def _block_bootstrap(blocks: Any, values: Floats, name: str) -> dict[str, float]:
    """Return fields named after `name`: the median of the values, with its interval from a bootstrap over blocks."""
    return over_blocks(blocks, lambda weights: weighted_median(values, weights)).fields(name)


def _image_bootstrap(values: Floats) -> tuple[float, float]:
    """Return a percentile interval of the median from a bootstrap over images."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return nan, nan
    drawn = np.random.default_rng(0).choice(values, (DRAWS, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _median(values: Floats) -> float:
    return float(weighted_median(values, np.ones((1, len(values))))[0])


def _order(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a sort key: by block, head (pathways last) and the order of the edits."""
    block, head, edit = key
    return block, head is None, head or 0, position_of(edit)
