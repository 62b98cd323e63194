"""What simulated quantization does to a model: damage by scheme, the share attributed to sinks, and damage by layer.

The figures are drawn from rows of the task `quantization` of an evaluation: columns protocol, metric, item, seed and
value.
"""

import re

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import (
    LIMIT_COLOR,
    TEXT_SIZE,
    TWO_COLUMNS,
    VARIANT_COLORS,
    Drawn,
    column,
    common_legend,
    new_axes,
    plain_log,
    say,
    whole_numbers,
)

LOOKS = {
    "static": ("one range, calibrated", VARIANT_COLORS[1], "o"),
    "percentile": ("one range, calibrated, tails clipped", VARIANT_COLORS[4], "v"),
    "dynamic": ("one range per image", VARIANT_COLORS[0], "s"),
    "token": ("one range per token", VARIANT_COLORS[2], "^"),
    "none": ("weights only", VARIANT_COLORS[6], "x"),
}
"""Granularity -> what it is called, its color and its marker."""
SHARES = {
    "share_sinks_kept": "sinks in full precision",
    "share_random_kept": "as many random tokens\nin full precision",
    "share_sinks_clipped": "range without sinks",
    "share_random_clipped": "range without as many\nrandom tokens",
}
"""Metric -> treatment in words."""
SMALLEST = 1e-9
"""Damage below this is rounding, and is drawn at this height on a logarithmic axis."""


def parsed(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of quantized models with the columns `bits`, `granularity`, and for layers `block` and `kind`."""
    name = pl.col("protocol")
    granularity = name.str.extract(r"_(static|dynamic|token)").fill_null("none")
    return rows.filter(name.str.contains(r"^[wa]\d")).with_columns(
        name.str.extract(r"^[wa](\d+)").cast(pl.Int64).alias("bits"),
        pl.when(name.str.contains("_p")).then(pl.lit("percentile")).otherwise(granularity).alias("granularity"),
        pl.col("item").map_elements(block_of, return_dtype=pl.Int64).alias("block"),
        pl.col("item").map_elements(kind_of, return_dtype=pl.String).alias("kind"),
    )


def block_of(layer: str) -> int | None:
    """Return the number of the block in the name of a layer, 3 of `blocks.3.attn.qkv`; None if it is in no block."""
    match = re.search(r"\.(\d+)\.", layer)
    return int(match[1]) if match else None


def kind_of(layer: str) -> str:
    """Return the name of a layer within its block, `attn.qkv` of `blocks.3.attn.qkv`."""
    return re.split(r"\.\d+\.", layer, maxsplit=1)[-1]


def damage(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of damage, with `value` as 1 - cosine where no divergence of class probabilities is known."""
    if "kl" in set(rows["metric"]):
        return rows.filter(pl.col("metric") == "kl")
    return rows.filter(pl.col("metric") == "cosine").with_columns(
        value=1 - pl.col("value"), metric=pl.lit("1 - cosine")
    )


def damage_label(rows: pl.DataFrame) -> str:
    """Return the label of an axis of damage."""
    return "KL to full precision" if "kl" in set(rows["metric"]) else "1 - cosine to full precision"


def by_layer(rows: pl.DataFrame) -> Drawn:
    """Draw the damage of quantizing the input of one layer, a row of panels per number of bits, a column per kind.

    Args:
        rows: The rows of the task.
    """
    table = damage(parsed(rows).filter(pl.col("item") != ""))
    kinds, bits = table["kind"].unique(maintain_order=True).to_list(), table["bits"].unique().sort().to_list()[::-1]
    size = (TWO_COLUMNS, 1.1 + 1.3 * len(bits))
    title = "Damage when the input of one layer is quantized"
    figure, axes = new_axes(max(1, len(bits)), max(1, len(kinds)), size, title)
    drawn = np.reshape(np.array(axes, dtype=object), (max(1, len(bits)), -1))
    for row, number in enumerate(bits):
        for place, kind in enumerate(kinds):
            panel = drawn[row, place]
            _draw_layers(panel, table.filter((pl.col("bits") == number) & (pl.col("kind") == kind)))
            panel.set_ylim(*_limits(table))
            plain_log(panel)
            if row == 0:
                panel.set_title(kind, fontsize=TEXT_SIZE)
            if place:
                panel.set_yticklabels([])
            in_blocks = block_of(table.filter(pl.col("kind") == kind)["item"][0]) is not None
            panel.set_xlabel("block" if in_blocks and row == len(bits) - 1 else "")
        drawn[row, 0].set_ylabel(f"{number} bits")
    if not len(table):
        say(axes[0], "no layer was quantized")
    figure.supylabel(damage_label(rows), fontsize=TEXT_SIZE)
    common_legend(figure, axes, columns=3)
    return figure, table.drop("seed", "backbone", strict=False)


def _draw_layers(panel: Axes, table: pl.DataFrame) -> None:
    """Draw the layers of one kind, one line per granularity; a layer outside the blocks is a single point."""
    for granularity, (label, color, marker) in LOOKS.items():
        line = table.filter(pl.col("granularity") == granularity)
        if len(line):
            blocks = line["block"].fill_null(0)
            values = np.maximum(column(line, "value"), SMALLEST)
            panel.plot(blocks, values, color=color, marker=marker, markersize=3, linewidth=1, label=label)
    if table["block"].is_null().any():
        panel.set_xticks([])
    else:
        whole_numbers(panel)


def _limits(table: pl.DataFrame) -> tuple[float, float]:
    """Return limits of a logarithmic axis that show all values of a table."""
    values = np.maximum(column(table, "value"), SMALLEST)
    return float(values.min()) / 2, float(values.max()) * 2


def by_scheme(rows: pl.DataFrame) -> Drawn:
    """Draw the damage of quantizing all layers, and the shares of it that treatments of some tokens remove.

    Args:
        rows: The rows of the task.
    """
    table = parsed(rows).filter(pl.col("item") == "")
    bits = table["bits"].unique().sort().to_list()[::-1]
    shown = [name for name in ("static", "dynamic", "token") if name in set(table["granularity"])]
    figure, axes = new_axes(1, 1 + len(shown), (TWO_COLUMNS, 3.4), "Damage when all layers are quantized")
    whole = damage(table)
    ends = {end: _ends(table, end) for end in ("low", "high")}
    for index, (granularity, (label, color, marker)) in enumerate(LOOKS.items()):
        line = whole.filter(pl.col("granularity") == granularity).sort("bits", descending=True)
        if not len(line):
            continue
        places = np.array([bits.index(number) for number in line["bits"]]) + 0.13 * (index - 2)
        low, high = (np.maximum([ends[end][protocol] for protocol in line["protocol"]], SMALLEST) for end in ends)
        values = np.maximum(column(line, "value"), SMALLEST)
        axes[0].errorbar(
            places, values, np.abs([values - low, high - values]), color=color, marker=marker, markersize=4,
            linestyle="none", linewidth=1, label=label,
        )  # fmt: skip
    axes[0].set_xticks(range(len(bits)), [f"{number}" for number in bits])
    axes[0].set(xlabel="bits", ylabel=damage_label(rows))
    plain_log(axes[0])
    for panel, granularity in zip(axes[1:], shown, strict=True):
        _draw_shares(panel, table.filter(pl.col("granularity") == granularity), bits)
        panel.set_title(LOOKS[granularity][0], fontsize=TEXT_SIZE)
    axes[1].set_ylabel("share of the damage removed\n(-1: -1 or less)")
    common_legend(figure, axes, columns=3)
    kept = table.filter(~pl.col("metric").str.contains(r"^acc1"))
    return figure, kept.drop("block", "kind", "item", "backbone", strict=False)


def _ends(table: pl.DataFrame, end: str) -> dict[str, float]:
    """Return one end of the interval of the damage by protocol."""
    metric = "kl" if "kl" in set(table["metric"]) else "cosine"
    source = f"{metric}_{end}" if metric == "kl" else f"cosine_{'high' if end == 'low' else 'low'}"
    found = table.filter(pl.col("metric") == source)
    values = column(found, "value")
    return dict(zip(found["protocol"], values if metric == "kl" else 1 - values, strict=True))


def _of_metric(table: pl.DataFrame, metric: str, line: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of another metric that belong to the rows of a line, in their order."""
    return line.select("protocol", "seed").join(
        table.filter(pl.col("metric") == metric),
        on=["protocol", "seed"],
        nulls_equal=True,
        how="left",
        maintain_order="left",
    )


def _draw_shares(panel: Axes, table: pl.DataFrame, bits: list[int]) -> None:
    """Draw the shares that treatments remove, by bits; several seeds of random tokens are several points."""
    for index, (metric, label) in enumerate(SHARES.items()):
        line = table.filter(pl.col("metric") == metric)
        places = np.array([bits.index(number) for number in line["bits"]]) + 0.15 * (index - 1.5)
        color = VARIANT_COLORS[1] if "sinks" in metric else LIMIT_COLOR
        face = color if metric.endswith("kept") else "white"
        shares = np.clip(column(line, "value"), -1, 1)
        panel.plot(
            places, shares, marker="o", linestyle="none", color=color, markerfacecolor=face, markersize=4, label=label
        )
        ends = [column(_of_metric(table, f"{metric}_{end}", line), "value") for end in ("low", "high")]
        panel.vlines(places, *np.clip(ends, -1, 1), color=color, linewidth=0.8)
    panel.axhline(0, color=LIMIT_COLOR, linewidth=0.6)
    panel.set_xticks(range(len(bits)), [f"{number}" for number in bits])
    panel.set(xlabel="bits", ylim=(-1.05, 1.05))
    if np.isnan(column(table.filter(pl.col("metric").is_in(list(SHARES))), "value")).all():
        say(panel, "no damage")
