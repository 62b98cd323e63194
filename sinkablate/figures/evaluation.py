"""Figures of an evaluation, drawn from its tidy table."""

import numpy as np
import polars as pl

from sinkablate.figures.sinks import LIMIT_COLOR, TEXT_SIZE, VARIANT_COLORS, Drawn, new_axes, say

BACKBONES = {"model": VARIANT_COLORS[0], "random": VARIANT_COLORS[6], "pixels": LIMIT_COLOR}
"""The evaluated model and its floors, with their colors."""
BACKBONE_NAMES = {"model": "model", "random": "random backbone", "pixels": "raw pixels"}


def overview(rows: pl.DataFrame) -> Drawn:
    """Draw the first metric of every task, for the model and its floors; bars end at the mean over probe seeds.

    Args:
        rows: The rows of `evaluation.parquet`.
    """
    whole = rows.filter(pl.col("item") == "")
    first = whole.group_by("task", maintain_order=True).first().select("task", "protocol", "metric")
    shown = whole.join(first, on=["task", "protocol", "metric"], how="semi", maintain_order="left")
    means = shown.group_by("task", "protocol", "metric", "backbone", maintain_order=True).agg(
        pl.col("value").mean().alias("mean"), pl.col("value").std().alias("sd"), pl.len().alias("seeds")
    )
    figure, axes = new_axes(
        1, max(1, len(first)), (1.6 + 1.9 * max(1, len(first)), 2.8), "Evaluation, next to its floors"
    )
    for axis, (task, protocol, metric) in zip(axes, first.iter_rows(), strict=False):
        of_task = means.filter(pl.col("task") == task)
        names = of_task["backbone"].to_list()
        spread = np.nan_to_num(of_task["sd"].cast(pl.Float64).fill_null(0).to_numpy())
        axis.bar(range(len(names)), of_task["mean"], yerr=spread, color=[BACKBONES[name] for name in names], capsize=3)
        axis.set_xticks(range(len(names)), [BACKBONE_NAMES[name].replace(" ", "\n") for name in names])
        axis.tick_params(labelsize=TEXT_SIZE)
        axis.set_title(f"{task}: {metric}\n{protocol}", fontsize=TEXT_SIZE)
    if not len(first):
        say(axes[0], "no task has finished")
    return figure, means
