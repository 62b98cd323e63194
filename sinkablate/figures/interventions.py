"""Figures of what edits do, from the tables of an intervention."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from matplotlib.figure import Figure

from sinkablate.figures.sinks import LABEL_COLORS, Drawn, say

COLORS = {**LABEL_COLORS, "pathway": "#009E73", "none": "#555555"}
MARKERS = {"nop": "o", "broadcast": "s", "other": "^", "pathway": "D", "none": "v"}
SMALLEST = 1e-6
"""Smaller effects, zero among them, are drawn here, at the axis's edge: below is rounding."""


def edits_by_label(heads: pl.DataFrame, classes: pl.DataFrame, labels: Mapping[str, str]) -> Drawn:
    """Final effect of every edit by class: heads as small dots, the class median with its interval over blocks."""
    shown = heads.select("block", "head", "edit", "class", "effect", "effect_low", "effect_high", "counts")
    edits = [edit for edit in labels if edit in set(shown["edit"])]
    names = [name for name in COLORS if name in set(shown["class"])]
    figure = Figure(figsize=(7.2, max(2.4, 1.1 + 0.36 * len(edits))), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
        offset = 0.22 * (place - (len(names) - 1) / 2)
        for row, edit in enumerate(edits):
            some = shown.filter((pl.col("class") == name) & (pl.col("edit") == edit))
            effects = _shown(some["effect"])
            axis.scatter(effects, np.full(len(effects), row + offset), s=7, alpha=0.35, color=COLORS[name])
            median = classes.filter((pl.col("class") == name) & (pl.col("edit") == edit))
            if len(median):
                value, low, high = (float(_shown(median[f"effect{end}"])[0]) for end in ("", "_low", "_high"))
                axis.plot([low, high], [row + offset] * 2, color=COLORS[name], linewidth=1.6)
                axis.plot(
                    value,
                    row + offset,
                    color=COLORS[name],
                    marker=MARKERS[name],
                    markersize=6,
                    label=f"{name}, {median['heads'][0]} heads" if row == 0 else None,
                )
    axis.set_yticks(range(len(edits)), [labels[edit] for edit in edits])
    axis.set_xscale("log" if np.isfinite(_shown(shown["effect"])).any() else "linear")
    axis.set(
        xlabel="relative RMS change of the final patch tokens, without the sink", ylim=(max(len(edits), 1) - 0.5, -0.5)
    )
    if not edits:
        say(axis, "no head was edited")
    elif len(classes):
        axis.legend(fontsize=7)
    return figure, shown


def effect_by_ratio(
    heads: pl.DataFrame, labels: Mapping[str, str], edit: str | None, nop_max: float, broadcast_min: float
) -> Drawn:
    """Final effect of one edit of every head against its value ratio: what a label's ratio says of what it does."""
    shown = heads.filter((pl.col("edit") == edit) & pl.col("head").is_not_null()).select(
        "block", "head", "class", "ratio_out", "effect", "effect_low", "effect_high", "local_size"
    )
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    for name in (name for name in COLORS if name in set(shown["class"])):
        some = shown.filter(pl.col("class") == name)
        x, y = some["ratio_out"].to_numpy(), _shown(some["effect"])
        spread = [np.clip(y - _shown(some["effect_low"]), 0, None), np.clip(_shown(some["effect_high"]) - y, 0, None)]
        axis.errorbar(
            x,
            y,
            yerr=np.nan_to_num(spread),
            fmt=MARKERS[name],
            color=COLORS[name],
            markersize=5,
            linewidth=0.8,
            label=name,
        )
    for limit in (nop_max, broadcast_min):
        axis.axvline(limit, color="#555555", linewidth=0.8, linestyle="--")
    seen = _shown(shown["effect"])
    axis.set_yscale("log" if np.isfinite(seen).any() else "linear")
    axis.set(
        xlabel="value ratio ‖u_s‖ / mean ‖u_j‖, median; dashed: label limits",
        ylabel=f"final effect of\n{labels.get(edit or '', 'an edit')}",
    )
    axis.set_xlim(left=0)
    if not len(shown):
        say(axis, "no head was edited")
    else:
        axis.legend(fontsize=7)
    return figure, shown


def _shown(values: pl.Series) -> np.ndarray:  # type: ignore[type-arg]
    """As floats, what is too small for the axis at its edge; NaN stays."""
    return np.clip(values.cast(pl.Float64).to_numpy(), SMALLEST, None)
