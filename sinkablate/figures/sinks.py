"""Colors, and one drawing function per figure of what sinks do; each draws a tidy table of one model into axes.

`diagnosis.py` arranges them into the figures of one diagnosis, and `report/` into figures of many runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, NullLocator

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
TYPE_MARKERS = {
    "cls": "o",
    "register": "s",
    "patch": "^",
    "null": "x",
    "kv_bias": "D",
    "bos": "o",
    "sep": "s",
    "punctuation": "v",
    "word": "^",
}
NO_EVENT_COLOR = "#BBBBBB"
LIMIT_COLOR = "#555555"
TEXT_SIZE = 8
"""Points; text of this size is readable in a figure of 8 inches at the width of a page."""

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
    FigureCanvasPdf(figure).print_pdf(path.with_suffix(".pdf"))  # type: ignore[no-untyped-call]
    data.write_csv(path.with_suffix(".csv"))


def new_axes(rows: int, columns: int, size: tuple[float, float], title: str = "") -> tuple[Figure, list[Axes]]:
    """Return a figure of `size` inches with a title, and its axes, row by row."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    with rc_context({"axes.labelsize": TEXT_SIZE, "xtick.labelsize": TEXT_SIZE, "ytick.labelsize": TEXT_SIZE}):
        axes = list(np.ravel(figure.subplots(rows, columns, squeeze=False)))
    if title:
        figure.suptitle(title, fontsize=10)
    return figure, axes


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
            frameon=bool(entries),
        )


def whole_numbers(axis: Axes, which: Literal["x", "y"] = "x") -> None:
    """Put the ticks of a counting axis at whole numbers."""
    axis.locator_params(axis=which, integer=True, min_n_ticks=1)


def plain_log(axis: Axes, which: Literal["x", "y"] = "y") -> None:
    """Make an axis logarithmic, with ticks labeled by plain numbers; call it once the data is drawn."""
    getattr(axis, f"set_{which}scale")("log")
    low, high = getattr(axis, f"get_{which}lim")()
    ticks = getattr(axis, f"{which}axis")
    ticks.set_major_locator(LogLocator(subs=(1,) if high / low > 100 else (1, 1.5, 2, 3, 5, 7)))
    ticks.set_major_formatter("{x:g}")
    ticks.set_minor_locator(NullLocator())


def say(axis: Axes, text: str, color: str = "black") -> None:
    """Write the reason why axes are empty into their middle."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=8, color=color)


def column(table: pl.DataFrame, name: str) -> np.ndarray:  # type: ignore[type-arg]
    """Return one column as floats, NaN for null."""
    return table[name].cast(pl.Float64).fill_null(float("nan")).to_numpy()


def has_numbers(table: pl.DataFrame, name: str) -> bool:
    """Return whether a column exists and is defined somewhere."""
    return name in table.columns and not np.isnan(column(table, name)).all()


def draw_by_type(
    axis: Axes, blocks: pl.DataFrame, prefix: str, *, names: Names | None = None, style: str = "-", note: str = ""
) -> list[str]:
    """Draw a share by token type against the block: one line per type.

    Args:
        axis: Where to draw.
        blocks: A table of blocks.
        prefix: `mass_` for attention mass, `events_<rule>_` for the events of a rule.
        names: What the token types are called.
        style: Style of the lines.
        note: Added to each entry of the legend.

    Returns:
        The drawn columns; empty if the share is undefined for every block and type.
    """
    kinds = [kind for kind in TYPE_COLORS if has_numbers(blocks, f"mass_{kind}")]
    drawn = [f"{prefix}{kind}" for kind in kinds if has_numbers(blocks, f"{prefix}{kind}")]
    for name in drawn:
        text, color, marker = type_look(name.removeprefix(prefix), names)
        label = f"{text}, {note}" if note else text
        axis.plot(blocks["block"], column(blocks, name), style, color=color, marker=marker, markersize=4, label=label)
    axis.set_ylim(-0.03, 1.03)
    whole_numbers(axis)
    return drawn


def draw_heads(axis: Axes, heads: pl.DataFrame, name: str) -> AxesImage:
    """Draw a column of a table of heads, with values from 0 to 1, as a picture of blocks and heads."""
    table = heads.sort("block", "head")
    numbers = table["block"].unique(maintain_order=True).to_list()
    values = column(table, name).reshape(len(numbers), -1)
    image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
    step = -(-len(numbers) // 12)
    axis.set_yticks(range(0, len(numbers), step), [str(number) for number in numbers[::step]])
    whole_numbers(axis)
    if name.endswith("_frequency") and not (values > 0).any():
        say(axis, "no event in any head", color="white")
    return image


def draw_atlas(axis: Axes, points: pl.DataFrame, limits: Mapping[str, float], *, rest: str = "no event") -> None:
    """Draw the value ratio against the stable rank of every head.

    Args:
        axis: Where to draw.
        points: Columns `ratio`, `rank`, `label` (`none` is drawn small and gray) and `token_type`.
        limits: `nop_max`, `broadcast_min` and `rank_max`, drawn as dashed lines.
        rest: What the gray heads are called.
    """
    lines = {
        f"NOP: ratio ≤ {limits['nop_max']:g}": (axis.axvline, limits["nop_max"], ":"),
        f"broadcast: ratio ≥ {limits['broadcast_min']:g}": (axis.axvline, limits["broadcast_min"], "--"),
        f"broadcast: rank ≤ {limits['rank_max']:g}": (axis.axhline, limits["rank_max"], "-."),
    }
    for text, (draw, limit, style) in lines.items():
        draw(limit, color=LIMIT_COLOR, linewidth=0.8, linestyle=style, label=text)
    groups = sorted(set(points.select("label", "token_type").rows()), key=lambda pair: (pair[0] != "none", pair))
    for label, kind in groups:
        group = points.filter((pl.col("label") == label) & (pl.col("token_type") == kind))
        gray = label == "none"
        axis.scatter(
            group["ratio"],
            group["rank"],
            s=9 if gray else 24,
            alpha=0.8,
            color=NO_EVENT_COLOR if gray else LABEL_COLORS[label],
            marker="o" if gray else TYPE_MARKERS[kind],
            label=rest if gray else f"{label.replace('nop', 'NOP')}, {kind}",
        )
    axis.set_xlim(left=0)


def draw_token_norms(axis: Axes, blocks: pl.DataFrame, *, names: Names | None = None) -> list[str]:
    """Draw token norms by type against the block: median solid, 99th percentile dotted; return the drawn types."""
    drawn = [kind for kind in ("cls", "register", "patch") if has_numbers(blocks, f"norm_{kind}_median")]
    for kind in drawn:
        text, color, marker = type_look(kind, names)
        median, p99 = column(blocks, f"norm_{kind}_median"), column(blocks, f"norm_{kind}_p99")
        axis.plot(blocks["block"], median, color=color, marker=marker, markersize=4, label=f"{text}, median")
        axis.plot(blocks["block"], p99, ":", color=color, marker=".", markersize=3, label=f"{text}, 99th percentile")
    whole_numbers(axis)
    return drawn


def type_look(kind: str, names: Names | None) -> tuple[str, str, str]:
    """Name, color and marker of a token type."""
    name = (names or {}).get(kind, kind)
    look = kind if name == kind else "null"
    return name, TYPE_COLORS[look], TYPE_MARKERS[look]
