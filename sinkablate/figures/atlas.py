"""The atlas of heads: the rank of each head's update against the size of what its sink writes."""

from collections.abc import Mapping, Sequence
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
LABEL_MARKERS = {"nop": "o", "broadcast": "s", "other": "^"}
FIRST_BLOCK = 0
"""The block that reads raw patch embeddings: its points are hollow."""


def least_events(images: int) -> int:
    """Fewest events for which the atlas labels a head: 50, or half the images if there are fewer than 100."""
    return 50 if images >= 100 else max(1, images // 2)


def atlas_points(heads: pl.DataFrame, rule: str, min_events: int | None = None) -> pl.DataFrame:
    """Return the position of each head in the atlas, and its label.

    A head with at least `min_events` events of the rule is at the medians over these events and has their most
    frequent label. Any other head is at the medians over all images and has the label `none`.

    Args:
        heads: One row per block and head, with the columns `<rule>_event_median_<quantity>`.
        rule: Name of the rule.
        min_events: Fewest events for which a head is labeled, at least 1; default: `least_events`.

    Returns:
        Columns `block`, `head`, `images`, `events`, `min_events`, `label`, `token_type`, `rank` (the stable rank of
        the update), and those of `VALUES` that the table holds; sorted by block and head.
    """
    least = least_events(int(heads["images"][0])) if min_events is None else max(1, min_events)
    counts = [pl.col(f"{rule}_{label}") for label in LABEL_COLORS]
    most = pl.concat_list(counts).list.arg_max().replace_strict(dict(enumerate(LABEL_COLORS)), return_dtype=pl.String)
    enough = pl.sum_horizontal(counts) >= least

    def median(name: str) -> pl.Expr:
        return pl.when(enough).then(f"{rule}_event_median_{name}").otherwise(f"median_{name}")

    held = [name for name in VALUES if f"{rule}_event_median_{name}" in heads.columns]
    return heads.sort("block", "head").select(
        "block",
        "head",
        "images",
        pl.sum_horizontal(counts).alias("events"),
        pl.lit(least).alias("min_events"),
        pl.when(enough).then(most).otherwise(pl.lit("none")).alias("label"),
        "token_type",
        median("stable_rank").alias("rank"),
        *(median(name).alias(name) for name in held),
    )


def has_atlas(heads: pl.DataFrame, rule: str) -> bool:
    """Return whether a table of heads holds the medians over the events of a rule."""
    return f"{rule}_event_median_ratio_out" in heads.columns


def atlas(
    points: Mapping[str, Sequence[pl.DataFrame]],
    rule: str,
    limits: Mapping[str, Mapping[str, float]],
    values: Sequence[str] = tuple(VALUES),
) -> Drawn:
    """Draw the atlas, one row of panels per variant and one panel per quantity on the vertical axis.

    Color: the block; shape: the label; hollow: block 0; small and gray: too few events, medians over all images.

    Args:
        points: Variant -> the results of `atlas_points` for its runs, all in one panel.
        rule: The rule of the labels, for the title.
        limits: Variant -> `nop_max`, `broadcast_min` and `rank_max` of the rule.
        values: Which of `VALUES` to draw.
    """
    names = list(points)
    title = heading("What the sinks of the heads write: medians over the events of a head", names, rule)
    figure, axes = new_axes(len(names), len(values), (width_of(len(values)), 0.9 + 2.2 * len(names)), title)
    last = max(int(table["block"].max() or 0) for tables in points.values() for table in tables)  # type: ignore[arg-type]
    scale = Normalize(0, max(1, last))
    for index, axis in enumerate(axes):
        name, value = names[index // len(values)], values[index % len(values)]
        draw_atlas(axis, pl.concat(points[name], how="diagonal_relaxed"), value, limits[name], scale)
        axis.set_ylabel(VALUES[value])
        if index % len(values) == 0:
            axis.set_title(_counted(name if len(names) > 1 else "", points[name]), fontsize=TEXT_SIZE, loc="left")
        if index >= len(axes) - len(values):
            axis.set_xlabel("stable rank of the head's update")
    add_colorbar(figure, ScalarMappable(scale, "viridis"), axes, "block", ticks=MaxNLocator(6, integer=True))
    figure.legend(handles=_keys(), loc="outside lower center", ncols=4, fontsize=TEXT_SIZE, frameon=False)
    rows = [table.select(pl.lit(name).alias("variant"), pl.all()) for name in names for table in points[name]]
    return figure, pl.concat(rows, how="diagonal_relaxed")


def _counted(name: str, tables: Sequence[pl.DataFrame]) -> str:
    """Title of a row: the variant, and how many of its heads are labeled."""
    table = pl.concat(tables, how="diagonal_relaxed")
    labeled = len(table.filter(pl.col("label") != "none"))
    text = f"{labeled} of {len(table)} heads have ≥ {table['min_events'][0]} events"
    return f"{name}: {text}" if name else text


def draw_atlas(
    axis: Axes, points: pl.DataFrame, value: str, limits: Mapping[str, float], scale: Normalize | None = None
) -> None:
    """Draw one quantity of `VALUES` against the rank of every head; ratios with the limits of the rule, dashed."""
    if value not in points.columns or np.isnan(column(points, value)).all():
        say(axis, "not measured")
        return
    scale = scale or Normalize(0, max(1, int(points["block"].max() or 0)))  # type: ignore[arg-type]
    axis.axvline(limits["rank_max"], color=LIMIT_COLOR, linewidth=0.8, linestyle="-.")
    if value != "sink_head_norm":
        axis.axhline(limits["nop_max"], color=LIMIT_COLOR, linewidth=0.8, linestyle=":")
        axis.axhline(limits["broadcast_min"], color=LIMIT_COLOR, linewidth=0.8, linestyle="--")
    for (label, first), group in points.with_columns(first=pl.col("block") == FIRST_BLOCK).group_by(
        "label", "first", maintain_order=True
    ):
        gray = label == "none"
        colors = NO_EVENT_COLOR if gray else colormaps["viridis"](scale(column(group, "block")))
        axis.scatter(
            column(group, "rank"),
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


def _keys() -> list[Line2D]:
    """Entries of the legend: shapes, block 0, gray points, and the limits."""

    def point(marker: str, label: str, *, hollow: bool = False, color: str = "#444444", size: int = 5) -> Line2D:
        face = "none" if hollow else color
        look = {"marker": marker, "color": color, "markerfacecolor": face, "markersize": size, "linestyle": ""}
        return Line2D([], [], label=label, **look)  # type: ignore[arg-type]

    def line(style: Literal[":", "--", "-."], label: str) -> Line2D:
        return Line2D([], [], color=LIMIT_COLOR, linewidth=0.8, linestyle=style, label=label)

    return [
        *(point(marker, label.replace("nop", "NOP")) for label, marker in LABEL_MARKERS.items()),
        point("o", "block 0 (hollow)", hollow=True),
        point(".", "too few events: all images", color=NO_EVENT_COLOR),
        line(":", "NOP: ratio at most"),
        line("--", "broadcast: ratio at least"),
        line("-.", "broadcast: rank at most"),
    ]
