"""Attention maps of heads that sink, in which the sink is a vertical stripe."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from sinkablate.figures.sinks import (
    LIMIT_COLOR,
    TEXT_SIZE,
    TWO_COLUMNS,
    Drawn,
    Names,
    add_colorbar,
    new_axes,
    type_look,
    whole_numbers,
)

SINK = Line2D([], [], linestyle="", marker="v", color="black", label="the sink: most attention")
MEAN = Line2D([], [], linestyle=":", color=LIMIT_COLOR, label="mean of the other tokens")
TITLE = "Above: stripes, the keys that most queries attend to. Below: how much each key writes."
SMALL_SHARE = 50
"""A token type with fewer than one in this number of columns is marked by squares; a line would be too short."""
MARK_POINTS = 3
"""Distance of the marks of token types from the axis."""
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
    picture: NDArray[np.float32] | None = None
    """The image, (H, W) or (H, W, 3) in [0, 1]; None for other input."""
    model: str = ""
    """Name of the model, where a figure shows several."""

    @property
    def mean_attention(self) -> NDArray[np.float32]:
        """Mean of |A| over the queries, (M,)."""
        mean: NDArray[np.float32] = np.abs(self.weights).mean(0)
        return mean

    @property
    def sink(self) -> int:
        """The column that receives the most attention."""
        return int(self.mean_attention.argmax())

    @property
    def other_norm(self) -> float:
        """Mean ||u_j|| of the tokens that are not the sink."""
        others = [kind not in EXTRA_COLUMNS and key != self.sink for key, kind in enumerate(self.token_types)]
        return float(self.value_norms[others].mean())


def stripes(maps: Sequence[AttentionMap], image: str, names: Names | None = None, title: str = TITLE) -> Drawn:
    """Draw attention maps on one color scale, below each the norm that every key can write, and the image beside.

    A stripe above a dip is a head that writes almost nothing (NOP); a stripe above an ordinary bar broadcasts.

    Args:
        maps: One per panel. A picture is drawn to the left of the first of the maps that share it.
        image: Name of the input.
        names: What the token types are called.
        title: First lines of the title.

    Returns:
        The figure, and for every head and column the token type, the mean attention and the value norm.
    """
    entries = _with_pictures(maps)
    columns = max(1, len(entries))
    figure, axes = new_axes(2, columns, (TWO_COLUMNS, 4.2), f"{title}\nInput: {image}")
    top = max([1e-9, *(float(np.quantile(np.abs(shown.weights), 0.995)) for shown in maps)])
    colors: AxesImage | None = None
    for above, below, entry in zip(axes[:columns], axes[columns:], entries, strict=False):
        if isinstance(entry, AttentionMap):
            colors = _draw_map(above, entry, top, names)
            _draw_values(below, entry, names)
            below.sharex(above)
        else:
            above.imshow(entry, cmap="gray", vmin=0, vmax=1)
            above.set_axis_off()
            below.set_axis_off()
    if colors is not None:
        add_colorbar(figure, colors, axes[:columns], "attention weight")
    first = next((index for index, entry in enumerate(entries) if isinstance(entry, AttentionMap)), 0)
    axes[first].set_ylabel("query", labelpad=7)
    axes[columns + first].set_ylabel("norm written, ‖u_j‖")
    types = dict.fromkeys(kind for shown in maps for kind in shown.token_types)
    patches = [Patch(color=color, label=name) for name, color in (type_look(kind, names) for kind in types)]
    figure.legend(handles=[*patches, SINK, MEAN], loc="outside lower center", ncols=4, fontsize=TEXT_SIZE)
    return figure, pl.concat([_rows(shown) for shown in maps])


def _with_pictures(maps: Sequence[AttentionMap]) -> list[AttentionMap | NDArray[np.float32]]:
    """The maps, each picture in front of the first map that has it."""
    entries: list[AttentionMap | NDArray[np.float32]] = []
    before: NDArray[np.float32] | None = None
    for shown in maps:
        if shown.picture is not None and shown.picture is not before:
            entries.append(shown.picture)
        before = shown.picture
        entries.append(shown)
    return entries


def _rows(shown: AttentionMap) -> pl.DataFrame:
    """The columns of one map, one row each."""
    return pl.DataFrame(
        {
            **({"model": shown.model} if shown.model else {}),
            "block": shown.block,
            "head": shown.head,
            "column": np.arange(len(shown.token_types)),
            "token_type": shown.token_types,
            "mean_attention": shown.mean_attention,
            "value_norm": shown.value_norms,
        }
    )


def _draw_map(axis: Axes, shown: AttentionMap, top: float, names: Names | None) -> AxesImage:
    """Draw |A|, black to yellow from 0 to `top`, with the token types along both axes."""
    image = axis.imshow(np.abs(shown.weights), vmin=0, vmax=top, cmap="magma", aspect="auto", interpolation="nearest")
    name, _ = type_look(shown.token_types[shown.sink], names)
    attention = shown.mean_attention[shown.sink]
    head, sink = f"block {shown.block}, head {shown.head}", f"sink: key {shown.sink} ({name})"
    lines = (shown.model, head, sink, f"attention {attention:.2f}")
    axis.set_title("\n".join(filter(None, lines)), fontsize=TEXT_SIZE if len(shown.model) < 40 else 7)
    whole_numbers(axis)
    whole_numbers(axis, "y")
    _mark_types(axis, shown.token_types, names, "x")
    _mark_types(axis, shown.token_types[: len(shown.weights)], names, "y")
    return image


def _mark_types(axis: Axes, types: Sequence[str], names: Names | None, which: Literal["x", "y"]) -> None:
    """Draw the token types along an axis, a type that has few columns as squares."""
    x, y = (0, -MARK_POINTS) if which == "x" else (-MARK_POINTS, 0)
    inside = axis.get_xaxis_transform() if which == "x" else axis.get_yaxis_transform()
    frame = offset_copy(inside, axis.get_figure(root=True), x, y, units="points")
    for kind in dict.fromkeys(types):
        keys = np.flatnonzero(np.array(types) == kind)
        few = len(keys) * SMALL_SHARE < len(types)
        along, outside = (keys, np.zeros(len(keys))) if few else ([keys[0] - 0.5, keys[-1] + 0.5], [0, 0])
        position = (along, outside) if which == "x" else (outside, along)
        squares: dict[str, Any] = {"linestyle": "", "marker": "s", "markersize": 3, "zorder": 3}
        style = squares if few else {"linewidth": 3, "solid_capstyle": "butt", "zorder": 2}
        axis.plot(*position, color=type_look(kind, names)[1], transform=frame, clip_on=False, **style)
    axis.tick_params(axis=which, pad=6)


def _draw_values(axis: Axes, shown: AttentionMap, names: Names | None) -> None:
    """Draw the value norm of every key in the color of its token type, and mark the sink."""
    norms, sink = shown.value_norms, shown.sink
    axis.bar(np.arange(len(norms)), norms, width=1, color=[type_look(kind, names)[1] for kind in shown.token_types])
    axis.axhline(shown.other_norm, color=LIMIT_COLOR, linestyle=":", linewidth=0.9)
    axis.set_ylim(0, 1.2 * float(norms.max()) or 1)
    axis.plot(sink, norms[sink] + 0.1 * norms.max(), "v", color="black", markersize=4)
    axis.set_title(f"sink / others: {norms[sink] / shown.other_norm:.2g}", fontsize=TEXT_SIZE)
    axis.set_xlabel("key")
    whole_numbers(axis)


def save_maps(path: Path, maps: Sequence[AttentionMap]) -> None:
    """Store attention maps of one model on one input, weights in half precision."""
    first = maps[0]
    np.savez_compressed(
        path,
        block=[shown.block for shown in maps],
        head=[shown.head for shown in maps],
        weights=np.stack([shown.weights for shown in maps]).astype(np.float16),
        value_norms=np.stack([shown.value_norms for shown in maps]),
        token_types=first.token_types,
        picture=[] if first.picture is None else first.picture,
    )


def load_maps(path: Path, model: str = "") -> list[AttentionMap]:
    """Return the attention maps that `save_maps` stored.

    Raises:
        OSError, ValueError, KeyError: The file is damaged.
    """
    with np.load(path) as stored:
        picture = stored["picture"].astype(np.float32) if stored["picture"].size else None
        weights, norms = stored["weights"].astype(np.float32), stored["value_norms"]
        types = tuple(stored["token_types"].tolist())
        places = zip(stored["block"].tolist(), stored["head"].tolist(), weights, norms, strict=True)
        return [AttentionMap(*place, types, picture, model) for place in places]


def two_algorithms(maps: Sequence[AttentionMap], nop_max: float, broadcast_min: float) -> list[AttentionMap]:
    """Choose a NOP head and a broadcast head: for each, the one whose sink receives the most attention, after block 0.

    Heads of block 0, which read raw patch embeddings, are chosen only from a model of one block.
    """
    deep = {shown.model for shown in maps if shown.block}
    candidates = [shown for shown in maps if shown.block or shown.model not in deep]

    def best(fits: Callable[[float], bool]) -> list[AttentionMap]:
        fitting = [shown for shown in candidates if fits(float(shown.value_norms[shown.sink]) / shown.other_norm)]
        return sorted(fitting, key=lambda shown: -float(shown.mean_attention.max()))[:1]

    return best(lambda ratio: ratio <= nop_max) + best(lambda ratio: ratio >= broadcast_min)
