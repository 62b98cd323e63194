"""The distribution of token norms, from histograms with common edges."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import (
    TEXT_SIZE,
    TYPE_COLORS,
    VARIANT_COLORS,
    Drawn,
    Names,
    column,
    common_legend,
    heading,
    new_axes,
    plain_log,
    width_of,
)


def norm_histograms(tables: Mapping[str, Sequence[pl.DataFrame]], names: Mapping[str, Names] | None = None) -> Drawn:
    """Draw how the norms of tokens are distributed in the output of the last block, one panel per token type.

    Args:
        tables: Variant -> histograms of its runs, with columns `block`, `token_type`, `low`, `high` and `count`; all
            with the same edges, so the counts of several runs are added.
        names: Variant -> what its token types are called.
    """
    shares = pl.concat([_shares(variant, of_runs) for variant, of_runs in tables.items()])
    kinds = [kind for kind in TYPE_COLORS if kind in set(shares["token_type"])]
    title = heading("How the token norms are distributed, output of the last block", tables)
    figure, axes = new_axes(1, max(1, len(kinds)), (width_of(max(2, len(kinds))), 3), title)
    for axis, kind in zip(axes, kinds, strict=False):
        for color, variant in zip(VARIANT_COLORS, tables, strict=False):
            _draw(axis, shares.filter((pl.col("variant") == variant) & (pl.col("token_type") == kind)), color, variant)
        plain_log(axis, "x")
        variants = shares.filter(pl.col("token_type") == kind)["variant"].unique(maintain_order=True)
        kinds_of = dict.fromkeys((names or {}).get(variant, {}).get(kind, kind) for variant in variants)
        axis.set_title(" or ".join(kinds_of), fontsize=TEXT_SIZE)
        axis.set(xlabel="L2 norm, before the final norm", ylim=(0, None))
    axes[0].set_ylabel("share of the tokens")
    if len(tables) > 1:
        common_legend(figure, axes, columns=3)
    return figure, shares


def _shares(variant: str, tables: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Share of the tokens of each type in each bin, in the last block, over all runs of a variant."""
    last = [table.filter(pl.col("block") == pl.col("block").max()) for table in tables]
    counts = (
        pl.concat(last).group_by("block", "token_type", "low", "high", maintain_order=True).agg(pl.col("count").sum())
    )
    return counts.select(
        pl.lit(variant).alias("variant"),
        pl.all(),
        (pl.col("count") / pl.col("count").sum().over("token_type")).alias("share"),
    ).sort("variant", "token_type", "low")


def _draw(axis: Axes, rows: pl.DataFrame, color: str, variant: str) -> None:
    """Draw the bins of one variant from the first to the last that is not empty, as an outline."""
    occupied = np.flatnonzero(column(rows, "share"))
    if not len(occupied):
        return
    shown = rows[max(0, occupied[0] - 1) : occupied[-1] + 2]
    edges = [*shown["low"], shown["high"][-1]]
    axis.stairs(column(shown, "share"), edges, color=color, linewidth=1.2, label=variant)
