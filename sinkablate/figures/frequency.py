"""How often each head of each block has a sink event."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sinkablate.figures.blocks import Variants
from sinkablate.figures.sinks import TEXT_SIZE, Drawn, add_colorbar, draw_grid, grid_of, heading, new_axes, width_of


def frequency(heads: Variants, rule: str) -> Drawn:
    """Draw the share of images on which each head has an event, one panel per variant.

    Heads of different runs do not correspond. With several runs of a variant, the heads of each block are sorted by
    frequency, and the panel shows the mean over the runs.

    Args:
        heads: Variant -> tables of heads.
        rule: The rule of the events.
    """
    columns = min(3, len(heads))
    down = -(-len(heads) // columns)
    title = heading("On how many of the images each head has a sink", heads, rule)
    rows = max(table["block"].n_unique() for tables in heads.values() for table in tables)
    size = (width_of(max(2, columns)), 0.8 + (0.7 + max(1.2, 0.14 * rows)) * down)
    figure, axes = new_axes(down, columns, size, title)
    data = []
    for axis, (variant, tables) in zip(axes, heads.items(), strict=False):
        values = np.stack([grid_of(table, f"{rule}_frequency")[1] for table in tables])
        mean = values[0] if len(tables) == 1 else -np.sort(-values, axis=2).mean(0)
        blocks = tables[0]["block"].unique().sort().to_list()
        image = draw_grid(axis, blocks, mean, none="no event in any head")
        axis.set_title(variant if len(heads) > 1 else "", fontsize=TEXT_SIZE)
        axis.set(xlabel="head" if len(tables) == 1 else "heads, sorted by frequency", ylabel="block")
        data.append(_rows(variant, blocks, mean, len(tables)))
    for axis in axes[len(heads) :]:
        axis.set_visible(False)
    add_colorbar(figure, image, axes, "share of images with an event")
    return figure, pl.concat(data)


def _rows(variant: str, blocks: list[int], mean: NDArray[np.float64], runs: int) -> pl.DataFrame:
    """What a panel shows, one row per square."""
    return pl.DataFrame(
        {
            "variant": variant,
            "block": np.repeat(blocks, mean.shape[1]),
            "head" if runs == 1 else "position": np.tile(np.arange(mean.shape[1]), len(blocks)),
            "frequency": mean.ravel(),
            "runs": runs,
        }
    ).rename({} if runs == 1 else {"position": "head"})
