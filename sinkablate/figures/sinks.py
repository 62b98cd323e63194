"""Colors, and one drawing function per figure of what sinks do; each draws a tidy table of one model into axes.

The other modules of this folder arrange them into figures of one or several variants.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

TYPE_COLORS = {
    "cls": "#0072B2",
    "register": "#E69F00",
    "patch": "#009E73",
    "null": "#999999",
    "kv_bias": "#CC79A7",
    "bos": "#0072B2",
    "sep": "#E69F00",
    "punctuation": "#D55E00",
    "word": "#009E73",
}
"""Okabe and Ito's colors, which color-blind readers can tell apart."""
LABEL_COLORS = {"nop": "#0072B2", "broadcast": "#D55E00", "other": "#999999"}
VARIANT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8B4513")
NO_EVENT_COLOR = "#BBBBBB"
LIMIT_COLOR = "#555555"
TEXT_SIZE = 8
"""Points; text of this size is readable in a figure of 8 inches at the width of a page."""

ONE_COLUMN, TWO_COLUMNS = 3.25, 6.75
"""Widths in inches of a figure in one and in two columns of a paper."""

Drawn = tuple[Figure, pl.DataFrame]
"""A figure and the data it shows."""
Names = Mapping[str, str]
"""Token type -> another name for it; a type that has one is a null token, and is drawn like a null column."""


def save(drawn: Drawn, path: Path) -> None:
    """Write `path` with the suffixes .png, .pdf and .csv."""
    figure, data = drawn
    figure.set_dpi(130)
    # first, because text is rounded to pixels and so takes the most space; `savefig` would draw each figure twice
    FigureCanvasAgg(figure).print_png(path.with_suffix(".png"))  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # keep this layout: with many frames, a second one takes seconds
    with rc_context({"pdf.fonttype": 42}):  # embed fonts as TrueType, as publishers require
        FigureCanvasPdf(figure).print_pdf(path.with_suffix(".pdf"))  # type: ignore[no-untyped-call]
    data.write_csv(path.with_suffix(".csv"))


def width_of(panels: int) -> float:
    """Return the width of a figure with this number of panels in a row, in inches."""
    return ONE_COLUMN if panels == 1 else TWO_COLUMNS


def new_axes(rows: int, columns: int, size: tuple[float, float], title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure of `size` inches with a title, and its axes, row by row."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    with rc_context({"axes.labelsize": TEXT_SIZE, "xtick.labelsize": TEXT_SIZE, "ytick.labelsize": TEXT_SIZE}):
        axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    if title:
        figure.suptitle(title, fontsize=10)
    return figure, axes


def heading(text: str, variants: Collection[str], rule: str = "") -> str:
    """Return the title of a figure: what it shows, and below it the model, if it is only one, and the rule."""
    below = [*(variants if len(variants) == 1 else ()), *([f"rule {rule}"] if rule else ())]
    return "\n".join([text, *([", ".join(below)] if below else [])])


def common_legend(
    figure: Figure, axes: Sequence[Axes], *, above: bool = False, columns: int = 4, title: str = ""
) -> None:
    """Put one legend for all axes outside of them, with one entry per label.

    Args:
        figure: The figure of the axes.
        axes: Axes whose labeled lines and points are listed.
        above: Put it above the axes instead of below.
        columns: Largest number of entries in a row.
        title: Title of the legend.
    """
    entries: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    if entries or title:
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper center" if above else "outside lower center",
            ncols=max(1, min(columns, len(entries))),
            fontsize=TEXT_SIZE,
            title=title or None,
            title_fontsize=9 if above else TEXT_SIZE,
            frameon=bool(entries) and not title,
        )


def add_colorbar(figure: Figure, shown: ScalarMappable, axes: Sequence[Axes], label: str, **options: Any) -> None:
    """Put a labeled color bar next to axes; `options` are those of `Figure.colorbar`."""
    bar = figure.colorbar(shown, ax=axes, **options)
    bar.set_label(label, fontsize=TEXT_SIZE)
    bar.ax.tick_params(labelsize=TEXT_SIZE)


def whole_numbers(axis: Axes, which: Literal["x", "y"] = "x") -> None:
    """Put the ticks of a counting axis at whole numbers."""
    axis.locator_params(axis=which, integer=True, min_n_ticks=1)


def plain_log(axis: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with ticks labeled by plain numbers; call it once the data is drawn."""
    getattr(axis, f"set_{which}scale")("log")
    low, high = getattr(axis, f"get_{which}lim")()
    ticks = getattr(axis, f"{which}axis")
    subs = next(subs for most, subs in _TICKS.items() if high / low <= most)
    ticks.set_major_locator(MaxNLocator(4) if high < 2 * low else LogLocator(subs=subs))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_locator(NullLocator())


_TICKS = {6: (1, 1.5, 2, 3, 5, 7), 60: (1, 2, 5), 600: (1, 3), float("inf"): (1,)}
"""Largest ratio of the limits of a logarithmic axis -> where its ticks are within a decade."""


def say(axis: Axes, text: str, color: str = "black") -> None:
    """Write the reason why axes are empty in the middle of them."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=8, color=color)


def column(table: pl.DataFrame, name: str) -> np.ndarray:  # type: ignore[type-arg]
    """Return one column as floats, NaN for null."""
    return table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def has_numbers(table: pl.DataFrame, name: str) -> bool:
    """Return whether a column exists and is defined somewhere."""
    return name in table.columns and not np.isnan(column(table, name)).all()


def draw_heads(axis: Axes, heads: pl.DataFrame, name: str) -> AxesImage:
    """Draw a column of a table of heads, with values from 0 to 1, as a picture of blocks and heads."""
    none = "no event in any head" if name.endswith("_frequency") else ""
    return draw_grid(axis, *grid_of(heads, name), none=none)


def grid_of(heads: pl.DataFrame, name: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return the indices of the blocks, and a column of a table of heads as (blocks, heads)."""
    table = heads.sort("block", "head")
    numbers = table["block"].unique(maintain_order=True).to_list()
    return numbers, column(table, name).reshape(len(numbers), -1)


def draw_grid(axis: Axes, blocks: Sequence[int], values: NDArray[np.float64], *, none: str = "") -> AxesImage:
    """Draw numbers from 0 to 1, one row per block and one column per head.

    Args:
        axis: Where to draw.
        blocks: Indices of the blocks.
        values: (blocks, heads).
        none: What is written into the axes if no value is above zero.
    """
    image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
    step = -(-len(blocks) // 12)
    axis.set_yticks(range(0, len(blocks), step), [str(block) for block in blocks[::step]])
    whole_numbers(axis)
    if none and not (values > 0).any():
        say(axis, none, color="white")
    return image


def type_look(kind: str, names: Names | None) -> tuple[str, str]:
    """Name and color of a token type."""
    name = (names or {}).get(kind, kind)
    return name, TYPE_COLORS[kind if name == kind else "null"]
