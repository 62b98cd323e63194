"""The heat map of blocks and heads that `fit` draws while a model trains."""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import TEXT_SIZE, add_colorbar, draw_heads, grid_of, new_axes

MOST_NUMBERS = 64
"""Largest number of heads whose values are also written as numbers."""


def heatmap(table: pl.DataFrame, when: str, rules: Sequence[str]) -> bytes:
    """Draw the median mass of every head and how often each rule reports a sink, on color scales from 0 to 1.

    Args:
        table: One row per block and head, as `head_table` returns it.
        when: The step and the number of images, for the title.
        rules: Names of the rules; one panel each.

    Returns:
        The content of a PNG file.
    """
    panels = {"median_mass": "median attention\nto the dominant token"} | {
        f"{rule}_frequency": f"images with a sink,\nrule {rule}" for rule in rules
    }
    rows, columns = table["block"].n_unique(), table["head"].n_unique()
    size = (max(2.3, 1.2 + 0.32 * columns) * len(panels), max(2.9, 1.4 + 0.32 * rows))
    figure, axes = new_axes(1, len(panels), size, f"Which heads sink ({when})")
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        image = draw_heads(axis, table, name)
        axis.set_title(label, fontsize=TEXT_SIZE)
        axis.set_xlabel("head")
        if len(table) <= MOST_NUMBERS:
            _write_numbers(axis, grid_of(table, name)[1])
    axes[0].set_ylabel("block")
    add_colorbar(figure, image, axes, "share, 0 to 1")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _write_numbers(axis: Axes, values: "np.ndarray[tuple[int, int], np.dtype[np.float64]]") -> None:
    """Write each value into its square, an exact zero as 0."""
    for (block, head), value in np.ndenumerate(values):
        text = f"{value:.2f}".removeprefix("0") if value else "0"
        axis.text(head, block, text, ha="center", va="center", fontsize=7, color="black" if value > 0.5 else "white")
