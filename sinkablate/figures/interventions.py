"""Figures of what edits change, drawn from the tables of an intervention."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sinkablate.figures.sinks import LABEL_COLORS, LIMIT_COLOR, Drawn, common_legend, new_axes, plain_log, say

COLORS = {**LABEL_COLORS, "pathway": "#009E73", "none": "#555555"}
MARKERS = {"nop": "o", "broadcast": "s", "other": "^", "pathway": "D", "none": "v"}
NAMES = {"nop": "NOP", "broadcast": "broadcast", "other": "other", "pathway": "global pathway", "none": "no label"}
SMALLEST = 1e-6
"""Smaller effects are rounding noise: they are drawn at a tick labeled 0."""


def edits_by_label(heads: pl.DataFrame, classes: pl.DataFrame, labels: Mapping[str, str], tokens: str) -> Drawn:
    """Draw the effect of every edit: heads as small dots, and the median of each class with its interval over blocks.

    Args:
        heads: One row per block, head and edit.
        classes: One row per class and edit.
        labels: Name of an edit -> its label, in the order of the rows.
        tokens: What the tokens are called whose change is the effect, such as `final patch tokens`.
    """
    shown = heads.select("block", "head", "edit", "class", "effect", "effect_low", "effect_high", "counts")
    edits = [edit for edit in labels if edit in set(shown["edit"])]
    names = [name for name in COLORS if name in set(shown["class"])]
    zero = position_of_zero(shown)
    title = "How far each edit moves the output. Small: one head; large: median with 95 % interval"
    figure, (axis,) = new_axes(1, 1, (7.2, max(2.4, 1.2 + 0.42 * len(edits))), title)
    for position, name in enumerate(names):
        offset = 0.22 * (position - (len(names) - 1) / 2)
        for row, edit in enumerate(edits):
            chosen = (pl.col("class") == name) & (pl.col("edit") == edit)
            effects = floored(shown.filter(chosen)["effect"], zero)
            axis.scatter(effects, np.full(len(effects), row + offset), s=7, alpha=0.35, color=COLORS[name])
            for median in classes.filter(chosen).iter_rows(named=True):
                _median(axis, row + offset, name, median, zero)
        count = shown.filter(pl.col("class") == name).select("block", "head").n_unique()
        unit = f"{'block' if name == 'pathway' else 'head'}{'' if count == 1 else 's'}"
        axis.plot([], [], color=COLORS[name], marker=MARKERS[name], label=f"{NAMES[name]} ({count} {unit})")
    axis.set_yticks(range(len(edits)), [labels[edit] for edit in edits])
    axis.set_ylim(max(len(edits), 1) - 0.5, -0.5)
    axis.set_xlabel(f"relative change of the {tokens} (RMS, without the sink)")
    log_scale(axis, "x", shown, zero)
    if edits:
        common_legend(figure, [axis], columns=len(names))
    else:
        say(axis, "no head was edited")
    return figure, shown


def _median(axis: Axes, y: float, name: str, row: Mapping[str, Any], zero: float) -> None:
    """Draw the median of a class with its interval."""
    value, low, high = floored(pl.Series([row[f"effect{end}"] for end in ("", "_low", "_high")]), zero)
    axis.plot([low, high], [y, y], color=COLORS[name], linewidth=1.6)
    axis.plot(value, y, color=COLORS[name], marker=MARKERS[name], markersize=6)


def effect_by_ratio(
    heads: pl.DataFrame, labels: Mapping[str, str], edit: str | None, nop_max: float, broadcast_min: float, tokens: str
) -> Drawn:
    """Draw the effect of one edit of every head against the value ratio by which the head is labeled.

    Args:
        heads: One row per block, head and edit.
        labels: Name of an edit -> its label.
        edit: Name of the edit; None draws an empty figure.
        nop_max: Largest value ratio of a NOP head.
        broadcast_min: Smallest value ratio of a broadcast head.
        tokens: What the tokens are called whose change is the effect.
    """
    shown = heads.filter((pl.col("edit") == (edit or "")) & pl.col("head").is_not_null()).select(
        "block", "head", "class", "ratio_out", "effect", "effect_low", "effect_high", "local_size"
    )
    zero = position_of_zero(shown)
    made = " ".join(labels.get(edit or "", "").split())
    title = "Does the value ratio, by which a head is labeled, predict its effect?" + (
        f"\nEdit: {made}" if made else ""
    )
    figure, (axis,) = new_axes(1, 1, (6.4, 4.4), title)
    for name in (name for name in COLORS if name in set(shown["class"])):
        of_class = shown.filter(pl.col("class") == name)
        y, low, high = (floored(of_class[f"effect{end}"], zero) for end in ("", "_low", "_high"))
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
    axis.axvline(nop_max, color=LIMIT_COLOR, linewidth=0.8, linestyle=":", label=f"NOP: ratio ≤ {nop_max:g}")
    broadcast = f"broadcast: ratio ≥ {broadcast_min:g}"
    axis.axvline(broadcast_min, color=LIMIT_COLOR, linewidth=0.8, linestyle="--", label=broadcast)
    axis.set_xlabel("value ratio ‖u_s‖ / mean ‖u_j‖: what the sink writes relative to other tokens")
    axis.set_ylabel(f"relative change of the {tokens}\n(RMS, without the sink; 95 % interval over images)")
    axis.set_xlim(left=0)
    log_scale(axis, "y", shown, zero)
    if len(shown):
        common_legend(figure, [axis])
    else:
        say(axis, "no head was edited")
    return figure, shown


def position_of_zero(shown: pl.DataFrame) -> float:
    """Return where a logarithmic axis shows 0: one decade below that of the smallest effect that is not 0."""
    effects = shown["effect"].cast(pl.Float64).to_numpy()
    positive = effects[effects > SMALLEST]
    return float(10 ** (np.floor(np.log10(positive.min())) - 1)) if len(positive) else SMALLEST


def floored(values: pl.Series, zero: float) -> NDArray[np.float64]:
    """Return floats that are at least at the position of 0; NaN stays."""
    return np.clip(values.cast(pl.Float64).to_numpy(), zero, None)


def log_scale(axis: Axes, which: Literal["x", "y"], shown: pl.DataFrame, zero: float) -> None:
    """Set a logarithmic scale with plain numbers, and with a tick labeled 0 if any effect is 0.

    An axis on which every effect is 0, or none is defined, stays linear.
    """
    effects = shown["effect"].cast(pl.Float64).to_numpy()
    set_limits = getattr(axis, f"set_{which}lim")
    if not (effects > SMALLEST).any():
        set_limits(-0.05, 1)
        return
    plain_log(axis, which)
    if (effects <= SMALLEST).any():
        ticks = [zero, *10.0 ** np.arange(np.round(np.log10(zero)) + 1, np.ceil(np.log10(np.nanmax(effects))) + 1)]
        labels = ["0", *(np.format_float_positional(tick, precision=9, trim="-") for tick in ticks[1:])]
        getattr(axis, f"set_{which}ticks")(ticks, labels)
        set_limits(zero / 1.6)
        _mark_break(axis, which, zero * 10**0.5)


def _mark_break(axis: Axes, which: Literal["x", "y"], position: float) -> None:
    """Draw two slanted strokes across an axis between the tick labeled 0 and the logarithmic part."""
    frame = axis.get_xaxis_transform() if which == "x" else axis.get_yaxis_transform()
    positions, edge = [position / 1.08, position * 1.08], [0, 0]
    x, y = (positions, edge) if which == "x" else (edge, positions)
    stroke = {
        "linestyle": "none",
        "marker": ((-1, -1.5), (1, 1.5)),
        "markersize": 7,
        "color": "black",
        "clip_on": False,
    }
    axis.plot(x, y, transform=frame, scalex=False, scaley=False, label="_break", **stroke)  # type: ignore[arg-type]
