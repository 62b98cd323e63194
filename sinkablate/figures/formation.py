"""How the sink of a toy forms while it trains."""

import polars as pl

from sinkablate.figures.sinks import LABEL_COLORS, VARIANT_COLORS, Drawn, new_axes, plain_log

PANELS = {
    "mean square error": {"val/loss": "validation"},
    "share of attention": {
        "toy/attention_nop": "to the null token, from unchanged tokens",
        "toy/attention_active": "to the null token, from the others",
        "toy/inflow_max": "to the strongest column",
        "toy/inflow_source": "to the source token",
    },
    "ratio to the other tokens' value, rank": {
        "toy/value_ratio": "value ratio",
        "toy/stable_rank": "stable rank of the update",
    },
    "share of sequences, rule adaptive": {f"toy/label_{label}": label for label in LABEL_COLORS},
    "spectral spike of W_Q and W_K": {"toy/spectral_spike": "the sink's block"},
}
"""Title -> scalar -> entry of the legend."""


def formation(metrics: pl.DataFrame) -> Drawn:
    """Draw error, attention, value ratio, labels and query-key spike against the training step.

    Args:
        metrics: Rows of `metrics.csv`; the evaluations among them are shown.
    """
    data = metrics.filter(pl.col("toy/value_ratio").is_not_null()).sort("step")
    figure, axes = new_axes(1, len(PANELS), (2.9 * len(PANELS), 3.6))
    shown = ["step"]
    for axis, (title, lines) in zip(axes, PANELS.items(), strict=True):
        logged = {name: text for name, text in lines.items() if name in data.columns}
        shown += logged
        for color, (name, text) in zip(VARIANT_COLORS, logged.items(), strict=False):
            label = text.replace("nop", "NOP") if text in LABEL_COLORS else text
            axis.plot(
                data["step"], data[name], label=label, marker=".", markersize=3, color=LABEL_COLORS.get(text, color)
            )
        axis.set(xlabel="optimizer step", ylabel=title)
        axis.legend(fontsize=7)
    plain_log(axes[0])
    return figure, data.select(shown)
