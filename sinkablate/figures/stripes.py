"""Attention maps of heads that sink, in which the sink is a vertical stripe."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from sinkablate.figures.sinks import LIMIT_COLOR, TEXT_SIZE, Drawn, Names, new_axes, type_look, whole_numbers

SINK = Line2D([], [], linestyle="", marker="v", color="black", label="the sink: most attention")
MEAN = Line2D([], [], linestyle=":", color=LIMIT_COLOR, label="mean of the other tokens")
EXTRA_COLUMNS = ("null", "kv_bias")
"""Types of columns that are not tokens."""


class AttentionMap(NamedTuple):
    """One head on one image."""

    block: int
    head: int
    weights: NDArray[np.float32]
    """A (N, M)."""
    value_norms: NDArray[np.float32]
    """||u_j|| of every column, (M,)."""
    token_types: tuple[str, ...]
    """Token type of every column, (M,)."""

    @property
    def mean_attention(self) -> NDArray[np.float32]:
        """Mean of |A| over the queries, (M,)."""
        mean: NDArray[np.float32] = np.abs(self.weights).mean(0)
        return mean

    @property
    def sink(self) -> int:
        """The column that receives most attention."""
        return int(self.mean_attention.argmax())


def stripes(maps: Sequence[AttentionMap], image: str, names: Names | None = None) -> Drawn:
    """Draw attention maps on one color scale, and below each the norm that every key can write.

    A stripe above a dip is a head that writes almost nothing (NOP); a stripe above an ordinary bar broadcasts.

    Args:
        maps: One per panel.
        image: Name of the image.
        names: What the token types are called.

    Returns:
        The figure, and for every head and column the token type, the mean attention and the value norm.
    """
    title = f"Above: stripes, the keys that most queries attend to. Below: how much each key writes.\nInput: {image}"
    columns = max(1, len(maps))
    figure, axes = new_axes(2, columns, (max(6.4, 2 * columns), 4.4), title)
    top = max([1e-9, *(float(np.quantile(np.abs(shown.weights), 0.995)) for shown in maps)])
    rows = []
    for above, below, shown in zip(axes[:columns], axes[columns:], maps, strict=False):
        colors = _draw_map(above, shown, top, names)
        _draw_values(below, shown, names)
        below.sharex(above)
        rows.append(
            pl.DataFrame(
                {
                    "block": shown.block,
                    "head": shown.head,
                    "column": np.arange(len(shown.token_types)),
                    "token_type": shown.token_types,
                    "mean_attention": shown.mean_attention,
                    "value_norm": shown.value_norms,
                }
            )
        )
    bar = figure.colorbar(colors, ax=axes[:columns])
    bar.set_label("attention weight", fontsize=TEXT_SIZE)
    bar.ax.tick_params(labelsize=TEXT_SIZE)
    axes[0].set_ylabel("query (token that attends)")
    axes[columns].set_ylabel("norm written, ‖u_j‖")
    types = dict.fromkeys(kind for shown in maps for kind in shown.token_types)
    patches = [Patch(color=color, label=name) for name, color, _ in (type_look(kind, names) for kind in types)]
    figure.legend(handles=[*patches, SINK, MEAN], loc="outside lower center", ncols=len(types) + 2, fontsize=TEXT_SIZE)
    return figure, pl.concat(rows)


def _draw_map(axis: Axes, shown: AttentionMap, top: float, names: Names | None) -> AxesImage:
    """Draw |A|, black to yellow from 0 to `top`."""
    image = axis.imshow(np.abs(shown.weights), vmin=0, vmax=top, cmap="magma", aspect="auto", interpolation="nearest")
    name, _, _ = type_look(shown.token_types[shown.sink], names)
    attention = shown.mean_attention[shown.sink]
    text = f"block {shown.block}, head {shown.head}\nsink: key {shown.sink} ({name}), {attention:.2f}"
    axis.set_title(text, fontsize=8)
    whole_numbers(axis)
    whole_numbers(axis, "y")
    return image


def _draw_values(axis: Axes, shown: AttentionMap, names: Names | None) -> None:
    """Draw the value norm of every key in the color of its token type, and mark the sink."""
    norms, sink = shown.value_norms, shown.sink
    axis.bar(np.arange(len(norms)), norms, width=1, color=[type_look(kind, names)[1] for kind in shown.token_types])
    others = [kind not in EXTRA_COLUMNS and key != sink for key, kind in enumerate(shown.token_types)]
    axis.axhline(norms[others].mean(), color=LIMIT_COLOR, linestyle=":", linewidth=0.9)
    axis.set_ylim(0, 1.2 * float(norms.max()) or 1)
    axis.plot(sink, norms[sink] + 0.1 * norms.max(), "v", color="black", markersize=4)
    axis.set_xlabel("key (token attended to)")
    whole_numbers(axis)
