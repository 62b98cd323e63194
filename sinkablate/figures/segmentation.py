"""The intersection over union of each class, drawn from rows of the task `segmentation` of an evaluation."""

import polars as pl

from sinkablate.figures.evaluation import BACKBONE_NAMES, BACKBONES
from sinkablate.figures.sinks import TEXT_SIZE, Drawn, new_axes, say

INCHES_PER_CLASS = 0.17


def by_class(rows: pl.DataFrame) -> Drawn:
    """Draw the IoU of every class that occurs, for the model and its floors; points are means over probe seeds.

    Args:
        rows: Rows with the columns metric, item, backbone and value.
    """
    means = (
        rows.filter(pl.col("metric") == "iou", pl.col("value").is_not_nan())
        .group_by("item", "backbone", maintain_order=True)
        .agg(pl.col("value").mean())
    )
    order = means.filter(pl.col("backbone") == "model").sort("value")["item"].to_list()
    figure, axes = new_axes(1, 1, (4.6, 1.2 + INCHES_PER_CLASS * max(8, len(order))), "IoU of each class")
    for (name, color), marker in zip(BACKBONES.items(), "osx", strict=True):
        values = dict(means.filter(pl.col("backbone") == name).select("item", "value").iter_rows())
        if values:
            positions = [values.get(item, float("nan")) for item in order]
            axes[0].plot(
                positions,
                range(len(order)),
                marker,
                color=color,
                markersize=4,
                clip_on=False,
                label=BACKBONE_NAMES[name],
            )
    axes[0].set_yticks(range(len(order)), order, fontsize=TEXT_SIZE)
    axes[0].set_xlim(left=0)
    axes[0].set_xlabel("intersection over union", fontsize=TEXT_SIZE)
    axes[0].grid(axis="x", alpha=0.3)
    if order:
        axes[0].legend(fontsize=TEXT_SIZE - 1, loc="lower right")
    else:
        say(axes[0], "no class occurs")
    return figure, means
