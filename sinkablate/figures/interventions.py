"""Figures of what edits change, drawn from the tables of an intervention."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation
from numpy.typing import NDArray

from sinkablate.figures.sinks import LABEL_COLORS, Drawn, say

COLORS = {**LABEL_COLORS, "pathway": "#009E73", "none": "#555555"}
MARKERS = {"nop": "o", "broadcast": "s", "other": "^", "pathway": "D", "none": "v"}
NAMES = {"nop": "NOP", "broadcast": "broadcast", "other": "other", "pathway": "global pathway", "none": "no label"}
SMALLEST = 1e-6
"""Smaller effects are rounding noise: they are drawn here, at a tick labeled 0."""


def edits_by_label(heads: pl.DataFrame, classes: pl.DataFrame, labels: Mapping[str, str]) -> Drawn:
    """Draw the effect of every edit: heads as small dots, and the median of each class with its interval over blocks.

    Args:
        heads: One row per block, head and edit.
        classes: One row per class and edit.
        labels: Name of an edit -> its label, in the order of the rows.
    """
    shown = heads.select("block", "head", "edit", "class", "effect", "effect_low", "effect_high", "counts")
    edits = [edit for edit in labels if edit in set(shown["edit"])]
    names = [name for name in COLORS if name in set(shown["class"])]
    figure = Figure(figsize=(7.2, max(2.4, 1.2 + 0.42 * len(edits))), layout="constrained")
    axis = figure.subplots()
    for position, name in enumerate(names):
        offset = 0.22 * (position - (len(names) - 1) / 2)
        for row, edit in enumerate(edits):
            chosen = (pl.col("class") == name) & (pl.col("edit") == edit)
            effects = _floored(shown.filter(chosen)["effect"])
            axis.scatter(effects, np.full(len(effects), row + offset), s=7, alpha=0.35, color=COLORS[name])
            for median in classes.filter(chosen).iter_rows(named=True):
                _median(axis, row + offset, name, median)
        count = shown.filter(pl.col("class") == name).select("block", "head").n_unique()
        unit = "blocks" if name == "pathway" else "heads"
        axis.plot([], [], color=COLORS[name], marker=MARKERS[name], label=f"{NAMES[name]} ({count} {unit})")
    axis.set_yticks(range(len(edits)), [labels[edit] for edit in edits], fontsize=7.5)
    axis.set_ylim(max(len(edits), 1) - 0.5, -0.5)
    axis.set_xlabel("relative change of the final patch tokens (RMS, without the sink)", fontsize=8)
    figure.suptitle("How far each edit moves the output. Small: a head, large: median with 95 % interval", fontsize=8.5)
    if np.isfinite(_floored(shown["effect"])).any():
        _log_scale(axis, "x")
    if edits:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(names), fontsize=7)
    else:
        say(axis, "no head was edited")
    return figure, shown


def _median(axis: Axes, y: float, name: str, row: Mapping[str, Any]) -> None:
    """Draw the median of a class with its interval."""
    value, low, high = _floored(pl.Series([row[f"effect{end}"] for end in ("", "_low", "_high")]))
    axis.plot([low, high], [y, y], color=COLORS[name], linewidth=1.6)
    axis.plot(value, y, color=COLORS[name], marker=MARKERS[name], markersize=6)


def effect_by_ratio(
    heads: pl.DataFrame, labels: Mapping[str, str], edit: str | None, nop_max: float, broadcast_min: float
) -> Drawn:
    """Draw the effect of one edit of every head against the value ratio by which the head is labeled.

    Args:
        heads: One row per block, head and edit.
        labels: Name of an edit -> its label.
        edit: Name of the edit; None draws an empty figure.
        nop_max: Largest value ratio of a NOP head.
        broadcast_min: Smallest value ratio of a broadcast head.
    """
    shown = heads.filter((pl.col("edit") == (edit or "")) & pl.col("head").is_not_null()).select(
        "block", "head", "class", "ratio_out", "effect", "effect_low", "effect_high", "local_size"
    )
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    for name in (name for name in COLORS if name in set(shown["class"])):
        of_class = shown.filter(pl.col("class") == name)
        y, low, high = (_floored(of_class[f"effect{end}"]) for end in ("", "_low", "_high"))
        axis.errorbar(
            of_class["ratio_out"].to_numpy(),
            y,
            yerr=np.nan_to_num([np.clip(y - low, 0, None), np.clip(high - y, 0, None)]),
            fmt=MARKERS[name],
            color=COLORS[name],
            markersize=5,
            linewidth=0.8,
            label=NAMES[name],
        )
    for limit in (nop_max, broadcast_min):
        axis.axvline(limit, color="#555555", linewidth=0.8, linestyle="--")
    axis.set_xlabel("value ratio ‖u_s‖ / mean ‖u_j‖ of the sink (dashed: limits of NOP and broadcast)", fontsize=8)
    axis.set_ylabel("relative change of the final patch tokens", fontsize=8)
    axis.set_xlim(left=0)
    if np.isfinite(_floored(shown["effect"])).any():
        _log_scale(axis, "y")
    if len(shown):
        axis.set_title(f"Effect of the edit “{' '.join(labels.get(edit or '', '').split())}”", fontsize=8.5)
        axis.legend(fontsize=7)
    else:
        say(axis, "no head was edited")
    return figure, shown


def _log_scale(axis: Axes, which: str) -> None:
    """Set a logarithmic scale that starts at `SMALLEST`, whose tick is labeled 0."""
    getattr(axis, f"set_{which}scale")("log")
    getattr(axis, f"set_{which}lim")(left=SMALLEST / 1.6) if which == "x" else axis.set_ylim(bottom=SMALLEST / 1.6)
    scale: Axis = getattr(axis, f"{which}axis")
    powers = LogFormatterSciNotation()
    powers.set_axis(scale)
    scale.set_major_formatter(FuncFormatter(lambda x, place: "0" if x <= 1.01 * SMALLEST else powers(x, place)))
    scale.set_minor_formatter(FuncFormatter(lambda _x, _place: ""))


def _floored(values: pl.Series) -> NDArray[np.float64]:
    """Return floats of at least `SMALLEST`; NaN stays."""
    return np.clip(values.cast(pl.Float64).to_numpy(), SMALLEST, None)
