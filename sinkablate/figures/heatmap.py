"""The picture of blocks and heads that `fit` draws while a model trains."""

import io
from collections.abc import Sequence

import polars as pl

from sinkablate.figures.sinks import draw_heads, new_axes


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
    rows, columns = table["block"].n_unique(), table["head"].n_unique()
    size = (max(3.0, 1.2 + 0.32 * columns) * len(panels), max(2.6, 1.1 + 0.32 * rows))
    figure, axes = new_axes(1, len(panels), size)
    for axis, (name, label) in zip(axes, panels.items(), strict=True):
        image = draw_heads(axis, table, name)
        axis.set_title(label, fontsize=8)
        axis.set_xlabel("head", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("block", fontsize=8)
    figure.colorbar(image, ax=axes, shrink=0.9).ax.tick_params(labelsize=7)
    figure.suptitle(title, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
