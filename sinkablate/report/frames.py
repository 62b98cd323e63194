"""Figures of equal frames, from which the figures of a report are made."""

from collections.abc import Sequence
from itertools import zip_longest
from math import ceil

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sinkablate.figures.sinks import common_legend
from sinkablate.report.run import Run

COLUMNS = 5
"""Largest number of frames in a row."""
MOST_RUNS = 30
"""Largest number of runs in a figure with one frame per run."""


def some_runs(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """Choose at most `MOST_RUNS` runs for a figure, evenly over the variants.

    The first run of each variant is chosen, then the second, and so on; if not all of the next ones fit, some of them
    at regular intervals.

    Returns:
        The runs in their order, and what the title of the figure says about the choice: empty if all runs are shown.
    """
    if len(runs) <= MOST_RUNS:
        return list(runs), ""
    of_variant: dict[str, list[Run]] = {}
    for run in runs:
        of_variant.setdefault(run.variant, []).append(run)
    names: set[str] = set()
    for turn in zip_longest(*of_variant.values()):
        candidates = [run.name for run in turn if run is not None]
        room = min(MOST_RUNS - len(names), len(candidates))
        names |= {candidates[index] for index in np.linspace(0, len(candidates) - 1, room).round().astype(int)}
    return [run for run in runs if run.name in names], f"{MOST_RUNS} of {len(runs)} runs"


def frames(
    titles: Sequence[str], *, size: tuple[float, float] = (2.5, 2.1), share: bool = True, columns: int = COLUMNS
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal frames.

    Args:
        titles: Title of each frame; a frame is as wide as its title if that is wider than `size`.
        size: Width and height of a frame in inches.
        share: Whether the frames share their axes.
        columns: Largest number of frames in a row.
    """
    across = min(columns, len(titles))
    down = ceil(len(titles) / across)
    width = max(size[0], 0.2 + 0.067 * max(map(len, titles))) * across
    figure = Figure(figsize=(max(4.2, width), size[1] * down + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(down, across, squeeze=False, sharex=share, sharey=share)
    axes = list(np.ravel(grid))
    for axis, title in zip(axes, titles, strict=False):
        axis.set_title(title, fontsize=8)
        axis.tick_params(labelsize=7)
        axis.xaxis.label.set_size(8)
        axis.yaxis.label.set_size(8)
    for axis in axes[len(titles) :]:
        axis.set_visible(False)
    for index in range(len(titles), len(axes)):  # a frame with no other below it needs tick labels of its own
        axes[index - across].tick_params(labelbottom=True)
    return figure, axes[: len(titles)]


def label_axes(figure: Figure, x: str, y: str) -> None:
    """Label the axes of all frames together."""
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)


def keyed(figure: Figure, axes: Sequence[Axes], title: str = "") -> None:
    """Put one legend for all frames above them, under the title of the figure."""
    common_legend(figure, axes, above=True, columns=6, title=title)


def named(table: pl.DataFrame, run: Run) -> pl.DataFrame:
    """The rows with two more columns in front, the run's name and variant."""
    return table.select(pl.lit(run.name).alias("run"), pl.lit(run.variant).alias("variant"), pl.all())
