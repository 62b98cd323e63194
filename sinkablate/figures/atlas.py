"""The atlas of heads: the rank of each head's update against the size of what its sink writes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sinkablate.figures.sinks import (
    LABEL_COLORS,
    LIMIT_COLOR,
    NO_EVENT_COLOR,
    TEXT_SIZE,
    Drawn,
    add_colorbar,
    column,
    heading,
    new_axes,
    plain_log,
    say,
    width_of,
)

VALUES = {"ratio_out": "‖W v_s‖ / mean ‖W v_j‖", "ratio_head": "‖v_s‖ / mean ‖v_j‖", "sink_head_norm": "‖v_s‖"}
"""Quantities on the vertical axis: value ratio after and before the output projection, norm of the value."""
RANKS = {
    "stable_rank": "stable rank of the head's update",
    "routed_stable_rank": "stable rank of the routed queries' update",
}
"""Quantities on the horizontal axis."""
Limits = Mapping[str, Mapping[str, float]]
"""Quantity that decides between the labels of a rule -> `nop_max` and `broadcast_min`, or `rank_max`."""
LINES: dict[str, tuple[Literal[":", "--", "-."], str]] = {
    "nop_max": (":", "NOP: ratio at most"),
    "broadcast_min": ("--", "broadcast: ratio at least"),
    "rank_max": ("-.", "broadcast: rank at most"),
}
"""Limit -> the style of its line, and what it means."""
LABEL_MARKERS = {"nop": "o", "broadcast": "s", "other": "^"}
FIRST_BLOCK = 0
"""The block that reads raw patch embeddings: its points are hollow."""


def least_events(images: int) -> int:
    """Fewest events for which the atlas labels a head: 50, or half the images if there are fewer than 100."""
    return 50 if images >= 100 else max(1, images // 2)


def rank_of(limits: Limits, columns: Collection[str], prefix: str = "") -> str:
    """Return the quantity on the horizontal axis: the rank that the rule limits, or `stable_rank` if there is none.

    Args:
        limits: The limits of the rule.
        columns: Names of the columns of the table that holds the points; one of an old version may lack the rank.
        prefix: Beginning of the names of the columns.
    """
    return next(
        (name for name, of in limits.items() if "rank_max" in of and f"{prefix}{name}" in columns), "stable_rank"
    )


def values_of(limits: Limits) -> list[str]:
    """Return the quantities on the vertical axes: `VALUES`, and the ratio that the rule limits."""
    return list(dict.fromkeys((*VALUES, *(name for name, of in limits.items() if "rank_max" not in of))))


def atlas_points(heads: pl.DataFrame, rule: str, limits: Limits, min_events: int | None = None) -> pl.DataFrame:
    """Return the position of each head in the atlas, and its label.

    A head with at least `min_events` events of the rule is at the medians over these events and has their most
    frequent label. Any other head is at the medians over all images and has the label `none`.

    Args:
        heads: One row per block and head, with the columns `<rule>_event_median_<quantity>`.
        rule: Name of the rule.
        limits: The limits of the rule.
        min_events: Fewest events for which a head is labeled, at least 1; default: `least_events`.

    Returns:
        Columns `block`, `head`, `images`, `events`, `min_events`, `label`, `token_type`, and the quantities that the
        table holds, by name: that on the horizontal axis (`rank_of`) and those on the vertical axes (`values_of`);
        sorted by block and head.
    """
    least = least_events(int(heads["images"][0])) if min_events is None else max(1, min_events)
    counts = [pl.col(f"{rule}_{label}") for label in LABEL_COLORS]
    most = pl.concat_list(counts).list.arg_max().replace_strict(dict(enumerate(LABEL_COLORS)), return_dtype=pl.String)
    enough = pl.sum_horizontal(counts) >= least

    def median(name: str) -> pl.Expr:
        return pl.when(enough).then(f"{prefix}{name}").otherwise(f"median_{name}").alias(name)

    prefix = f"{rule}_event_median_"
    rank = rank_of(limits, heads.columns, prefix)
    held = [name for name in dict.fromkeys((rank, *values_of(limits))) if f"{prefix}{name}" in heads.columns]
    return heads.sort("block", "head").select(
        "block",
        "head",
        "images",
        pl.sum_horizontal(counts).alias("events"),
        pl.lit(least).alias("min_events"),
        pl.when(enough).then(most).otherwise(pl.lit("none")).alias("label"),
        "token_type",
        *map(median, held),
    )


def has_atlas(heads: pl.DataFrame, rule: str) -> bool:
    """Return whether a table of heads holds the medians over the events of a rule."""
    return f"{rule}_event_median_ratio_out" in heads.columns


def atlas(points: Mapping[str, Sequence[pl.DataFrame]], rule: str, limits: Mapping[str, Limits]) -> Drawn:
    """Draw the atlas, one row of panels per variant and one panel per quantity on the vertical axis.

    Color: the block; shape: the label; hollow: block 0; small and gray: too few events, medians over all images.

    Args:
        points: Variant -> the results of `atlas_points` for its runs, all in one panel.
        rule: The rule of the labels, for the title.
        limits: Variant -> the limits of the rule, which can have other values in each variant.
    """
    names = list(points)
    values = list(dict.fromkeys(value for of_variant in limits.values() for value in values_of(of_variant)))
    ranks = {name: rank_of(limits[name], [c for table in points[name] for c in table.columns]) for name in names}
    title = heading("What the sinks of the heads write: medians over the events of a head", names, rule)
    figure, axes = new_axes(len(names), len(values), (width_of(len(values)), 0.9 + 2.2 * len(names)), title)
    last = max(int(table["block"].max() or 0) for tables in points.values() for table in tables)  # type: ignore[arg-type]
    scale = Normalize(0, max(1, last))
    for index, axis in enumerate(axes):
        name, value = names[index // len(values)], values[index % len(values)]
        draw_atlas(axis, pl.concat(points[name], how="diagonal_relaxed"), (ranks[name], value), limits[name], scale)
        axis.set_ylabel(VALUES.get(value, value))
        if index % len(values) == 0:
            axis.set_title(_counted(name if len(names) > 1 else "", points[name]), fontsize=TEXT_SIZE, loc="left")
        if index >= len(axes) - len(values) or len(set(ranks.values())) > 1:
            axis.set_xlabel(RANKS.get(ranks[name], ranks[name]).replace(" of the ", "\nof the "))
    add_colorbar(figure, ScalarMappable(scale, "viridis"), axes, "block", ticks=MaxNLocator(6, integer=True))
    figure.legend(
        handles=_keys({limit for of_variant in limits.values() for of in of_variant.values() for limit in of}),
        loc="outside lower center",
        ncols=4,
        fontsize=TEXT_SIZE,
        frameon=False,
    )
    rows = [table.select(pl.lit(name).alias("variant"), pl.all()) for name in names for table in points[name]]
    return figure, pl.concat(rows, how="diagonal_relaxed")


def _counted(name: str, tables: Sequence[pl.DataFrame]) -> str:
    """Title of a row: the variant, and how many of its heads are labeled."""
    table = pl.concat(tables, how="diagonal_relaxed")
    labeled = len(table.filter(pl.col("label") != "none"))
    text = f"{labeled} of {len(table)} heads have ≥ {table['min_events'][0]} events"
    return f"{name}: {text}" if name else text


def draw_atlas(
    axis: Axes, points: pl.DataFrame, quantities: tuple[str, str], limits: Limits, scale: Normalize | None = None
) -> None:
    """Draw two quantities of every head, horizontal and vertical, with the limits of the rule on each of them.

    A quantity by which the rule does not decide has no lines.
    """
    rank, value = quantities
    if value not in points.columns or np.isnan(column(points, value)).all():
        say(axis, "not measured")
        return
    scale = scale or Normalize(0, max(1, int(points["block"].max() or 0)))  # type: ignore[arg-type]
    for draw_line, quantity in ((axis.axvline, rank), (axis.axhline, value)):
        for name, limit in limits.get(quantity, {}).items():
            draw_line(limit, color=LIMIT_COLOR, linewidth=0.8, linestyle=LINES[name][0])
    for (label, first), group in points.with_columns(first=pl.col("block") == FIRST_BLOCK).group_by(
        "label", "first", maintain_order=True
    ):
        gray = label == "none"
        colors = NO_EVENT_COLOR if gray else colormaps["viridis"](scale(column(group, "block")))
        axis.scatter(
            column(group, rank),
            column(group, value),
            s=7 if gray else 20,
            marker="." if gray else LABEL_MARKERS[str(label)],
            facecolors="none" if first else colors,
            edgecolors=colors,
            linewidths=0.8,
            zorder=1 if gray else 2,
        )
    plain_log(axis, "x")
    axis.set_ylim(bottom=0)


def _keys(limits: Collection[str]) -> list[Line2D]:
    """Entries of the legend: shapes, block 0, gray points, and the limits with these names."""

    def point(marker: str, label: str, *, hollow: bool = False, color: str = "#444444", size: int = 5) -> Line2D:
        face = "none" if hollow else color
        look = {"marker": marker, "color": color, "markerfacecolor": face, "markersize": size, "linestyle": ""}
        return Line2D([], [], label=label, **look)  # type: ignore[arg-type]

    return [
        *(point(marker, label.replace("nop", "NOP")) for label, marker in LABEL_MARKERS.items()),
        point("o", "block 0 (hollow)", hollow=True),
        point(".", "too few events: all images", color=NO_EVENT_COLOR),
        *(
            Line2D([], [], color=LIMIT_COLOR, linewidth=0.8, linestyle=style, label=label)
            for name, (style, label) in LINES.items()
            if name in limits
        ),
    ]
