"""A block x head picture of where the sinks are."""

import io
from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def heatmap(table: pl.DataFrame, title: str, rules: Sequence[str]) -> bytes:
    """Draw the median mass of every head and how often each rule reports a sink, all colors from 0 to 1.

    Args:
        table: One row per block and head, as `head_table` returns it.
        title: Title of the figure.
        rules: Names of the rules; one panel each.

    Returns:
        The content of a PNG file.
    """
    panels = {"median_mass": "median mass on the dominant column"} | {
        f"{rule}_frequency": f"share of images with an event, rule {rule}" for rule in rules
    }
    blocks, heads = table["block"].n_unique(), table["head"].n_unique()
    width, height = 1.2 + 0.32 * heads, 1.1 + 0.32 * blocks
    figure = Figure(figsize=(max(3.0, width) * len(panels), max(2.6, height)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (column, label) in zip(axes, panels.items(), strict=True):
        values = np.asarray(table.sort("block", "head")[column]).reshape(blocks, heads)
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto", origin="lower")
        axis.set_title(label, fontsize=8)
        axis.set_xlabel("head", fontsize=8)
        axis.tick_params(labelsize=7)
        axis.locator_params(integer=True)
    axes[0].set_ylabel("block", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.9).ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
