"""Figures over the depth of a model: one row of panels per variant, with a band over its runs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sinkablate.figures.sinks import (
    LIMIT_COLOR,
    TEXT_SIZE,
    TYPE_COLORS,
    VARIANT_COLORS,
    Drawn,
    Names,
    column,
    common_legend,
    has_numbers,
    heading,
    new_axes,
    plain_log,
    say,
    type_look,
    whole_numbers,
    width_of,
)

Variants = Mapping[str, Sequence[pl.DataFrame]]
"""Variant -> the tables of its runs, all with the same blocks."""
SERIES = ("variant", "panel", "series", "block", "mean", "low", "high", "runs")
"""Columns of the data of a figure over blocks."""


class Band(NamedTuple):
    """One column of the tables of several runs, row by row."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    """Smallest value in any run."""
    high: NDArray[np.float64]
    """Largest value in any run."""


def band(tables: Sequence[pl.DataFrame], name: str) -> Band:
    """Return the mean of a column over the runs that define it, and its range; NaN where no run does."""
    values = np.stack([column(table, name) for table in tables if name in table.columns])
    known = ~np.isnan(values)
    some = known.any(0)
    mean = np.where(some, np.nansum(values, 0) / np.maximum(known.sum(0), 1), np.nan)
    low = np.where(some, np.where(known, values, np.inf).min(0), np.nan)
    high = np.where(some, np.where(known, values, -np.inf).max(0), np.nan)
    return Band(mean, low, high)


def draw_band(axis: Axes, x: NDArray[np.float64], of: Band, color: str, label: str, style: str = ".-") -> None:
    """Draw the mean of several runs as a line and their range as a band, which a single run does not have."""
    axis.plot(x, of.mean, style, color=color, markersize=4, linewidth=1.1, label=label)
    if (of.high > of.low).any():
        axis.fill_between(x, of.low, of.high, color=color, alpha=0.2, linewidth=0)


def _rows(variant: str, panel: str, series: str, blocks: NDArray[np.float64], of: Band, runs: int) -> pl.DataFrame:
    """What a band shows, one row per block."""
    return pl.DataFrame({"block": blocks.astype(np.int64), "mean": of.mean, "low": of.low, "high": of.high}).select(
        pl.lit(variant).alias("variant"),
        pl.lit(panel).alias("panel"),
        pl.lit(series).alias("series"),
        "block",
        "mean",
        "low",
        "high",
        pl.lit(runs).alias("runs"),
    )


def _table(rows: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What all panels show; a table without rows if nothing was measured."""
    return pl.concat(rows) if rows else pl.DataFrame(schema=SERIES)


def with_types(
    blocks: pl.DataFrame, tokens: Mapping[str, int], dominant: NDArray[np.generic] | None = None
) -> pl.DataFrame:
    """Add what `handoff` shows to a table of blocks: `relative_mass_<type>`, and what an old table lacks.

    `relative_mass_<type>` is `mass_<type>` over `columns_<type>`: the attention that one token of the type receives, in
    units of the mean over all key columns.

    Args:
        blocks: One row per block.
        tokens: Number of key columns of each type, from which `columns_<type>` and, as all columns of an image can be
            dominant, `chance_<type>` are computed.
        dominant: Type of the dominant column of every image and head, (images, blocks, heads), as numbered in
            `TYPE_COLORS`, from which `dominant_<type>` is computed.
    """
    total = sum(tokens.values())
    added: dict[str, pl.Series] = {}
    for code, kind in enumerate(TYPE_COLORS):
        if dominant is not None and dominant.shape[1] == len(blocks):
            added[f"dominant_{kind}"] = pl.Series((dominant == code).mean((0, 2)))
        if tokens.get(kind):
            share = pl.Series([tokens[kind] / total] * len(blocks))
            added |= {f"columns_{kind}": share, f"chance_{kind}": share}
    kinds = [kind for kind in TYPE_COLORS if f"mass_{kind}" in blocks.columns]
    names = [f"{prefix}_{kind}" for prefix in ("dominant", "chance", "columns") for kind in kinds]
    table = blocks.with_columns(**{name: added[name] for name in names if name in added and name not in blocks.columns})
    shares = {  # in an old table, chance was the share of all columns
        kind: name for kind in kinds for name in (f"chance_{kind}", f"columns_{kind}") if name in table.columns
    }
    return table.with_columns(
        (pl.col(f"mass_{kind}") / pl.col(name)).alias(f"relative_mass_{kind}") for kind, name in shares.items()
    )


def handoff(blocks: Variants, rule: str, names: Mapping[str, Names] | None = None) -> Drawn:
    """Draw which type of token dominates each block, which type the events are on, and the mass of one token.

    The dominant column of a head on an image receives the most attention. Its chance level, dashed, is the share of the
    type among the columns that can be dominant. Mass per token is the attention that one token of a type receives, in
    units of the mean over all tokens, so it compares one CLS with hundreds of patches.

    Args:
        blocks: Variant -> tables of blocks, as `with_types` returns them.
        rule: The rule of the events.
        names: Variant -> what its token types are called.
    """
    panels = {
        "dominant_": "share of (image, head) pairs",
        f"events_{rule}_": "share of the sink events",
        "relative_mass_": "mass per token (mean: 1)",
    }
    titles = ("type of the dominant column", "type of the sinks", "attention to one token")
    title = heading("Which type of token dominates, block by block", blocks, rule)
    size = (width_of(len(panels)), 0.8 + 1.9 * len(blocks))
    figure, axes = new_axes(len(blocks), len(panels), size, title)
    rows = []
    for index, (variant, tables) in enumerate(blocks.items()):
        of_variant = axes[index * len(panels) : (index + 1) * len(panels)]
        for axis, (prefix, label), head in zip(of_variant, panels.items(), titles, strict=True):
            rows += draw_by_type(axis, variant, tables, prefix, (names or {}).get(variant))
            axis.set_ylabel(label)
            axis.set_title(head if not index else "", fontsize=TEXT_SIZE)
            if index == len(blocks) - 1:
                axis.set_xlabel("block")
        _finish_handoff(of_variant, variant, len(blocks))
    common_legend(figure, axes, columns=6)
    return figure, _table(rows)


def _finish_handoff(axes: Sequence[Axes], variant: str, variants: int) -> None:
    """Set the scales of the panels of one variant, and its name if there are several."""
    for axis in axes[:2]:
        axis.set_ylim(-0.03, 1.03)
    if axes[2].lines:
        plain_log(axes[2])
        axes[2].axhline(1, color=LIMIT_COLOR, linestyle="--", linewidth=0.8)
    if variants > 1:
        axes[0].annotate(variant, (0, 1.02), xycoords="axes fraction", fontsize=TEXT_SIZE, weight="bold")
        axes[0].set_title("")


def draw_by_type(
    axis: Axes, variant: str, tables: Sequence[pl.DataFrame], prefix: str, names: Names | None = None
) -> list[pl.DataFrame]:
    """Draw the columns PREFIX<type> against the block, with the chance levels of dominant columns.

    Returns:
        What is drawn, one row per block and series.
    """
    rows = []
    blocks = column(tables[0].sort("block"), "block")
    for kind in TYPE_COLORS:
        held = [table.sort("block") for table in tables if has_numbers(table, f"{prefix}{kind}")]
        present = any(has_numbers(table, f"mass_{kind}") for table in tables)
        if not held or not present:
            continue
        text, color = type_look(kind, names)
        values = band(held, f"{prefix}{kind}")
        draw_band(axis, blocks, values, color, text)
        rows.append(_rows(variant, prefix.rstrip("_"), kind, blocks, values, len(held)))
        if prefix == "dominant_" and has_numbers(held[0], f"chance_{kind}"):
            chance = band(held, f"chance_{kind}")
            axis.plot(blocks, chance.mean, "--", color=color, linewidth=0.8, label=f"{text}, chance")
            rows.append(_rows(variant, "chance", kind, blocks, chance, len(held)))
    if not rows:
        say(axis, "no events" if prefix.startswith("events") else "not measured")
    whole_numbers(axis)
    return rows


def token_norms(blocks: Variants, names: Mapping[str, Names] | None = None) -> Drawn:
    """Draw the token norms of each block's output, before the final norm: median solid, 99th percentile dotted."""
    columns = min(3, len(blocks))
    down = -(-len(blocks) // columns)
    title = heading("How large the tokens become", blocks)
    figure, axes = new_axes(down, columns, (width_of(columns), 1 + 2.1 * down), title)
    rows = []
    for axis, (variant, tables) in zip(axes, blocks.items(), strict=False):
        numbers = column(tables[0].sort("block"), "block")
        for kind in TYPE_COLORS:
            held = [table.sort("block") for table in tables if has_numbers(table, f"norm_{kind}_median")]
            text, color = type_look(kind, (names or {}).get(variant))
            for statistic, style in (("median", ".-"), ("p99", ":")) if held else ():
                values = band(held, f"norm_{kind}_{statistic}")
                draw_band(axis, numbers, values, color, f"{text}, {statistic.replace('p99', '99th percentile')}", style)
                rows.append(_rows(variant, statistic, kind, numbers, values, len(held)))
        whole_numbers(axis)
        plain_log(axis)
        axis.set(xlabel="block", ylabel="L2 norm of the block's output")
        axis.set_title(variant if len(blocks) > 1 else "", fontsize=TEXT_SIZE)
    for axis in axes[len(blocks) :]:
        axis.set_visible(False)
    common_legend(figure, axes, columns=2 if columns == 1 else 4)
    return figure, _table(rows)


def location_entropy(heads: Variants) -> Drawn:
    """Draw how much the position of the dominant column varies over images, block by block.

    Points: heads. Lines: mean over the heads of a block, mean over runs, with the range of the runs as a band.

    Args:
        heads: Variant -> tables of heads, with `location_entropy`.
    """
    title = heading("Does the dominant column stay where it is from image to image?", heads)
    figure, (axis,) = new_axes(1, 1, (width_of(2), 3.2), title)
    rows = []
    for index, (variant, tables) in enumerate(heads.items()):
        color = VARIANT_COLORS[index % len(VARIANT_COLORS)]
        means = [
            table.group_by("block").agg(pl.col("location_entropy").fill_nan(None).mean()).sort("block")
            for table in tables
        ]
        for table in tables:
            axis.plot(table["block"], table["location_entropy"], ".", color=color, alpha=0.3, markersize=3)
        numbers, values = column(means[0], "block"), band(means, "location_entropy")
        draw_band(axis, numbers, values, color, variant)
        rows.append(_rows(variant, "location_entropy", "mean over heads", numbers, values, len(tables)))
    whole_numbers(axis)
    axis.set(xlabel="block", ylabel="entropy of the dominant column\n(0: always the same; 1: uniform)")
    axis.set_ylim(-0.03, 1.03)
    if len(heads) > 1:
        common_legend(figure, [axis], columns=3)
    return figure, pl.concat(rows)
