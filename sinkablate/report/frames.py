"""Equal frames on one sheet: the ground of a report's figures."""

from collections.abc import Sequence
from itertools import zip_longest
from math import ceil

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sinkablate.report.runs import Run

COLUMNS = 5
"""Most frames in a row."""
MOST_RUNS = 30
"""In a figure with a frame a run."""


def some_runs(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """At most `MOST_RUNS` of the runs, in their order, and what a figure's title says of it; empty where all are there.

    The first run of each variant, then the second, and so on; where not all of a turn have room, some evenly between.
    """
    if len(runs) <= MOST_RUNS:
        return list(runs), ""
    of_variant: dict[str, list[Run]] = {}
    for run in runs:
        of_variant.setdefault(run.variant, []).append(run)
    names: set[str] = set()
    for turn in zip_longest(*of_variant.values()):
        there = [run.name for run in turn if run is not None]
        room = min(MOST_RUNS - len(names), len(there))
        names |= {there[place] for place in np.linspace(0, len(there) - 1, room).round().astype(int)}
    return [run for run in runs if run.name in names], f"{MOST_RUNS} of {len(runs)} runs"


def frames(
    titles: Sequence[str], *, size: tuple[float, float] = (2.5, 2.1), share: bool = True, columns: int = COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure of equal frames (inches), wider where a title needs it, as many a row as `columns`."""
    across = min(columns, len(titles))
    down = ceil(len(titles) / across)
    width = max(size[0], 0.2 + 0.067 * max(map(len, titles)))
    figure = Figure(figsize=(max(4.2, width * across), size[1] * down + 0.7), layout="constrained")
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
    for place in range(len(titles), len(axes)):  # frames above an empty place have no axis below to read
        axes[place - across].tick_params(labelbottom=True)
    return figure, axes[: len(titles)]


def label_axes(figure: Figure, x: str, y: str) -> None:
    """One title for all frames' axes."""
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)


def keyed(figure: Figure, axes: Sequence[Axes], title: str = "") -> None:
    """One legend above all frames, of everything that any of them shows, under a title of the figure."""
    found: dict[str, Artist] = {}
    for axis in axes:
        handles, texts = axis.get_legend_handles_labels()
        found |= dict(zip(texts, handles, strict=True))
    if found or title:
        figure.legend(
            list(found.values()),
            list(found),
            loc="outside upper center",
            ncols=max(1, min(6, len(found))),
            fontsize=8,
            title=title or None,
            title_fontsize=9,
            frameon=bool(found),
        )


def named(table: pl.DataFrame, run: Run) -> pl.DataFrame:
    """The rows with the run's name and variant before them."""
    return table.select(pl.lit(run.name).alias("run"), pl.lit(run.variant).alias("variant"), pl.all())
