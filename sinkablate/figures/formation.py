"""How the sink of a toy forms while it trains."""

import polars as pl

from sinkablate.figures.sinks import LABEL_COLORS, VARIANT_COLORS, Drawn, new_axes, plain_log

PANELS = {
    ("Error on the task", "mean squared error"): {"val/loss": "validation"},
    ("Attention to one token", "share of attention"): {
        "toy/attention_nop": "to null, from tokens\nthat must not change",
        "toy/attention_active": "to null, from the others",
        "toy/attention_resting": "to one token, from those\nthat must not change",
        "toy/inflow_max": "to the strongest token",
        "toy/inflow_source": "to the source token",
    },
    ("What that token writes", "value ratio (1: as others)"): {"toy/value_ratio": "value ratio"},
    ("Rank of the head's update", "stable rank (1: one direction)"): {"toy/stable_rank": "stable rank"},
    ("Label", "share of sequences, rule adaptive"): {f"toy/label_{label}": label for label in LABEL_COLORS},
    ("Spike of the query-key product", "largest / mean singular value"): {"toy/spectral_spike": "the sink's block"},
}
"""Title and unit of a panel -> scalar -> entry of the legend."""


def formation(metrics: pl.DataFrame) -> Drawn:
    """Draw error, attention, value ratio, stable rank, labels and query-key spike against the training step.

    Args:
        metrics: Rows of `metrics.csv`; the evaluations among them are shown. If there are two heads, the lines of the
            second are dashed.
    """
    data = metrics.filter(pl.col("toy/value_ratio").is_not_null()).sort("step")
    both = "toy/value_ratio/head0" in data.columns
    title = "How the sinks form during training (second head dashed)" if both else "How the sink forms during training"
    figure, axes = new_axes(2, 3, (8, 5.6), title)
    shown = ["step"]
    for axis, ((title, unit), lines) in zip(axes, PANELS.items(), strict=True):
        logged = {name: text for name, text in lines.items() if name in data.columns}
        for color, (name, text) in zip(VARIANT_COLORS, logged.items(), strict=False):
            heads = [f"{name}/head{head}" for head in (0, 1)] if both and name.startswith("toy/") else [name]
            shown += heads
            for drawn, style in zip(heads, ("-", "--"), strict=False):
                (line,) = axis.plot(data["step"], data[drawn], style, marker=".", markersize=3)
                line.set(color=LABEL_COLORS.get(text, color), label="NOP" if text == "nop" else text)
                if drawn != heads[0]:
                    line.set_label("_second head")
        axis.set_title(title, fontsize=9)
        axis.set(xlabel="optimizer step", ylabel=unit)
        axis.set_ylim(*((-0.03, 1.03) if unit.startswith("share") else (0, 1.05 * axis.get_ylim()[1])))
        if len(logged) > 1:
            columns = 1 if any("\n" in text for text in logged.values()) else 3
            axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=columns)
    axes[0].autoscale(axis="y")
    plain_log(axes[0])
    return figure, data.select(shown)
