"""Figures of an evaluation, drawn from its tidy table."""

from textwrap import wrap

import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import TEXT_SIZE, VARIANT_COLORS, Drawn, column, new_axes, say

BACKBONES = {"model": VARIANT_COLORS[0], "random": "#999999", "pixels": "#555555"}
"""The evaluated model and its floors, with their colors."""
BACKBONE_NAMES = {"model": "model", "random": "random weights", "pixels": "raw pixels"}


def overview(rows: pl.DataFrame, model: str = "") -> Drawn:
    """Draw the first metric of every task, for the model and its floors; bars end at the mean over probe seeds.

    Error bars are the sample standard deviation over several seeds.

    Args:
        rows: The rows of `evaluation.parquet`.
        model: Name of the model, for the title.
    """
    whole = rows.filter(pl.col("item") == "")
    first = whole.group_by("task", maintain_order=True).first().select("task", "protocol", "metric")
    means = (
        whole.join(first, on=["task", "protocol", "metric"], how="semi", maintain_order="left")
        .group_by("task", "protocol", "metric", "backbone", maintain_order=True)
        .agg(pl.col("value").mean().alias("mean"), pl.col("value").std().alias("sd"), pl.len().alias("seeds"))
    )
    panels = max(1, len(first))
    width = 1.2 + 2.1 * panels
    title = "\n".join(["Frozen features, next to their floors", *wrap(model, int(12 * width))])
    figure, axes = new_axes(1, panels, (width, 2.9), title)
    for axis, (task, protocol, metric) in zip(axes, first.iter_rows(), strict=False):
        _bars(axis, means.filter(pl.col("task") == task))
        axis.set_title(f"{task} {protocol}".strip(), fontsize=TEXT_SIZE)
        axis.set(xlabel="backbone", ylabel=metric)
    if not len(first):
        say(axes[0], "no task has finished")
    return figure, means


def _bars(axis: Axes, means: pl.DataFrame) -> None:
    """Draw one bar per backbone, with its number above."""
    names = means["backbone"].to_list()
    bars = axis.bar(range(len(names)), column(means, "mean"), color=[BACKBONES[name] for name in names])
    for place, (mean, sd) in enumerate(means.select("mean", "sd").iter_rows()):
        if sd is not None:
            axis.errorbar(place, mean, sd, fmt="none", color="black", capsize=3)
    axis.bar_label(bars, fmt="{:.3f}", fontsize=TEXT_SIZE, padding=3)
    axis.set_xticks(range(len(names)), [BACKBONE_NAMES[name].replace(" ", "\n") for name in names])
    axis.tick_params(labelsize=TEXT_SIZE)
    axis.margins(y=0.15)
