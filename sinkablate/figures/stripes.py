"""Attention maps of heads that sink, in which the sink is a vertical stripe."""

from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sinkablate.figures.sinks import Drawn, whole_numbers


class AttentionMap(NamedTuple):
    """One head on one image."""

    block: int
    head: int
    weights: NDArray[np.float32]
    """A (N, M)."""
    value_norms: NDArray[np.float32]
    """||u_j|| of every column, (M,)."""


def stripes(maps: list[AttentionMap], image: str) -> Drawn:
    """Draw attention maps, and below each the norm that every key can write.

    A stripe above a dip is a head that writes almost nothing (NOP); a stripe above an ordinary bar broadcasts.

    Args:
        maps: One per panel.
        image: Name of the image.

    Returns:
        The figure, and for every head and column the mean attention and the value norm.
    """
    figure = Figure(figsize=(2.7 * max(2, len(maps)), 3.6), layout="constrained")
    text = f"attention on {image}; below, what each key can write, orange for the key with most attention"
    figure.suptitle(text, fontsize=9)
    axes = figure.subplots(2, len(maps), height_ratios=(3, 1), squeeze=False, sharex="col")
    rows = []
    for panel, attention_map in enumerate(maps):
        above, below = axes[:, panel]
        size = np.abs(attention_map.weights)
        shown = above.imshow(
            size,
            vmin=0,
            vmax=max(1e-9, float(np.quantile(size, 0.995))),
            cmap="magma",
            aspect="auto",
            interpolation="nearest",
        )
        above.set_title(f"block {attention_map.block} head {attention_map.head}", fontsize=8)
        below.bar(np.arange(len(attention_map.value_norms)), attention_map.value_norms, width=1, color="#0072B2")
        below.set_xlabel("key", fontsize=8)
        sink = int(size.mean(0).argmax())
        below.bar([sink], attention_map.value_norms[sink : sink + 1], width=1, color="#D55E00")
        below.axvline(sink, color="#D55E00", linewidth=0.6, linestyle=":")
        for axis in (above, below):
            axis.tick_params(labelsize=7)
            whole_numbers(axis)
        whole_numbers(above, "y")
        figure.colorbar(shown, ax=above, shrink=0.8).ax.tick_params(labelsize=6)
        rows.append(
            pl.DataFrame(
                {
                    "block": attention_map.block,
                    "head": attention_map.head,
                    "column": np.arange(size.shape[1]),
                    "mean_attention": size.mean(0),
                    "value_norm": attention_map.value_norms,
                }
            )
        )
    axes[0, 0].set_ylabel("query", fontsize=8)
    axes[1, 0].set_ylabel("‖u_j‖", fontsize=8)
    return figure, pl.concat(rows)
