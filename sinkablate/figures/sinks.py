"""Figures of what sinks do, from tidy tables; each is saved as PDF and PNG beside the data it shows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

TYPE_COLORS = {"cls": "#0072B2", "register": "#E69F00", "patch": "#009E73", "null": "#999999", "kv_bias": "#CC79A7"}
"""Okabe and Ito's colors, which differ for color-blind readers too."""
LABEL_COLORS = {"nop": "#0072B2", "broadcast": "#D55E00", "other": "#999999"}
VARIANT_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555555", "#8B4513")
TYPE_MARKERS = {"cls": "o", "register": "s", "patch": "^", "null": "x", "kv_bias": "D"}

Drawn = tuple[Figure, pl.DataFrame]
"""A figure and the data it shows."""


def save(drawn: Drawn, path: Path) -> None:
    """Write `path` with the suffixes .pdf, .png and .csv."""
    figure, data = drawn
    figure.savefig(path.with_suffix(".png"), dpi=130)  # whose text, on whole pixels, is the wider
    figure.set_layout_engine("none")  # it stays as laid out for the first: with many frames that takes seconds
    figure.savefig(path.with_suffix(".pdf"))
    data.write_csv(path.with_suffix(".csv"))


def whole_numbers(axis: Axes, which: Literal["x", "y"] = "x") -> None:
    """Ticks of an axis that counts."""
    axis.locator_params(axis=which, integer=True, min_n_ticks=1)


def handoff(blocks: pl.DataFrame, rules: Sequence[str]) -> Drawn:
    """Which tokens receive the attention, block by block: share of the mass, and share of each rule's events."""
    kinds = [kind for kind in TYPE_COLORS if not np.isnan(_column(blocks, f"mass_{kind}")).all()]
    panels = {"mass_": "share of the attention mass"} | {
        f"events_{rule}_": f"share of events, rule {rule}" for rule in rules
    }
    data = blocks.select("block", *(f"{prefix}{kind}" for prefix in panels for kind in kinds))
    figure, axes = _axes(1, len(panels), (4.2 * len(panels), 3.2))
    for axis, (prefix, label) in zip(axes, panels.items(), strict=True):
        for kind in kinds:
            axis.plot(
                data["block"],
                data[f"{prefix}{kind}"],
                color=TYPE_COLORS[kind],
                marker=TYPE_MARKERS[kind],
                markersize=4,
                label=kind,
            )
        axis.set(xlabel="block (block 0 reads raw patch embeddings)", ylabel=label, ylim=(-0.03, 1.03))
        whole_numbers(axis)
        if data.select(pl.all_horizontal(pl.col(f"{prefix}{kind}").is_nan().all() for kind in kinds)).item():
            say(axis, "no event in any block")
    axes[0].legend(title="token type", fontsize=8, title_fontsize=8)
    return figure, data


def frequency(heads: pl.DataFrame, rules: Sequence[str]) -> Drawn:
    """How often each head of each block has a sink event."""
    data = heads.select("block", "head", *(f"{rule}_frequency" for rule in rules)).sort("block", "head")
    numbers = data["block"].unique(maintain_order=True).to_list()
    count = data["head"].n_unique()
    figure, axes = _axes(1, len(rules), (max(7.0, 1.6 + 0.5 * count), max(2.8, 1.2 + 0.22 * len(numbers))))
    for axis, rule in zip(axes, rules, strict=True):
        values = _column(data, f"{rule}_frequency").reshape(len(numbers), count)
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        axis.set(xlabel="head", ylabel="block", title=f"rule {rule}")
        axis.set_yticks(range(len(numbers)), [str(number) for number in numbers], fontsize=7)
        whole_numbers(axis)
        if not (values > 0).any():
            say(axis, "no event in any head", color="white")
    figure.colorbar(image, ax=axes, label="share of images with an event")
    return figure, data


def atlas(heads: pl.DataFrame, min_events: int, nop_max: float, broadcast_min: float, rank_max: float) -> Drawn:
    """Value ratio against stable rank of every head.

    Heads with enough `causal` events: medians over those, colored by the commonest label, marked by token type. The
    others: medians over all images, small and gray.
    """
    labels = list(LABEL_COLORS)
    data = heads.with_columns(
        events=pl.sum_horizontal(f"causal_{label}" for label in labels),
        label=pl.concat_list(f"causal_{label}" for label in labels)
        .list.arg_max()
        .map_elements(lambda place: labels[place], return_dtype=pl.String),
    ).select(
        "block",
        "head",
        "events",
        "label",
        "token_type",
        "event_median_ratio_out",
        "event_median_stable_rank",
        "median_ratio_out",
        "median_stable_rank",
    )
    enough = (pl.col("events") >= min_events) & (pl.col("events") > 0)
    shown, rest = data.filter(enough), data.filter(~enough)
    figure, (axis,) = _axes(1, 1, (5.2, 4.2))
    axis.axhline(rank_max, color="#555555", linewidth=0.8, linestyle="--")
    axis.scatter(rest["median_ratio_out"], rest["median_stable_rank"], s=7, color="#BBBBBB", label="fewer events")
    for limit, text in ((nop_max, "NOP"), (broadcast_min, "broadcast")):
        axis.axvline(limit, color="#555555", linewidth=0.8, linestyle="--")
        sign = "≤" if text == "NOP" else "≥"
        axis.annotate(
            f"{text} {sign} {limit:g}",
            (limit, 0.98),
            xycoords=("data", "axes fraction"),
            rotation=90,
            va="top",
            ha="right",
            fontsize=7,
        )
    for label, kind in sorted(set(zip(shown["label"], shown["token_type"], strict=True))):
        some = shown.filter((pl.col("label") == label) & (pl.col("token_type") == kind))
        axis.scatter(
            some["event_median_ratio_out"],
            some["event_median_stable_rank"],
            s=26,
            alpha=0.8,
            color=LABEL_COLORS[label],
            marker=TYPE_MARKERS[kind],
            label=f"{label}, {kind}",
        )
    axis.set(
        xlabel="value ratio ‖u_s‖ / mean ‖u_j‖, median",
        ylabel="stable rank of the update, median",
        yscale="log",
        title=f"heads with at least {min_events} causal events: {len(shown)} of {len(data)}",
    )
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.set_xlim(left=0)
    axis.legend(fontsize=7)
    return figure, data


def token_norms(blocks: pl.DataFrame) -> Drawn:
    """Token norms of each block's output, before the final norm, by token type: median, and the 99th percentile."""
    kinds = [kind for kind in ("cls", "register", "patch") if not np.isnan(_column(blocks, f"norm_{kind}_mean")).all()]
    names = ("mean", "median", "p99", "max", "outliers")
    data = blocks.select("block", *(f"norm_{kind}_{name}" for kind in kinds for name in names))
    figure, (axis,) = _axes(1, 1, (5.6, 3.6))
    for kind in kinds:
        color = TYPE_COLORS[kind]
        axis.plot(
            data["block"],
            data[f"norm_{kind}_median"],
            color=color,
            marker=TYPE_MARKERS[kind],
            markersize=4,
            label=f"{kind}, median",
        )
        axis.plot(data["block"], data[f"norm_{kind}_p99"], color=color, linestyle=":", label=f"{kind}, p99")
    axis.set(xlabel="block", ylabel="L2 norm of the block's output,\nbefore the final norm", yscale="log")
    whole_numbers(axis)
    axis.legend(fontsize=8)
    return figure, data


MOVES = {
    "routed_min": "mass that routes a query",
    "event_min": "share of routed queries",
    "nop_max": "value ratio: NOP at most …",
    "rank_max": "largest stable rank",
}
"""Thresholds that the sensitivity figure moves, one at a time."""


def moves(table: pl.DataFrame, rule: str) -> pl.DataFrame:
    """Rows of a sensitivity table where one threshold, named in column `axis`, moves and the others stay the rule's."""
    some = table.filter(pl.col("rule") == rule)
    home = some.filter(pl.col("steps") == 0)
    rows = []
    for name in MOVES:
        fixed = [column for column in MOVES if column != name]
        line = some.filter(pl.all_horizontal(pl.col(column) == home[column][0] for column in fixed)).sort(name)
        rows.append(line.with_columns(pl.lit(name).alias("axis")))
    return pl.concat(rows)


def sensitivity(table: pl.DataFrame) -> Drawn:
    """Events and labels per image while one threshold moves and the others stay at the rule's own; a row per rule."""
    rules = table["rule"].unique(maintain_order=True).to_list()
    figure, axes = _axes(len(rules), len(MOVES), (10.4, 0.4 + 2.5 * len(rules)))
    rows = []
    for row, rule in enumerate(rules):
        data = moves(table, rule)
        of_rule = axes[row * len(MOVES) : (row + 1) * len(MOVES)]
        draw_moves(of_rule, data)
        of_rule[0].set_ylabel(f"per image, blocks ≥ 1,\nrule {rule}")
        rows.append(data)
    axes[0].legend(fontsize=7)
    return figure, pl.concat(rows)


def draw_moves(axes: Sequence[Axes], data: pl.DataFrame) -> None:
    """Lines of `moves`, a threshold an axis; the rule's own value is dashed."""
    home = data.filter(pl.col("steps") == 0)
    for axis, (name, label) in zip(axes, MOVES.items(), strict=True):
        line = data.filter(pl.col("axis") == name)
        axis.plot(line[name], line["events"], color="black", linewidth=0.8, marker=".", label="events")
        for kind, color in LABEL_COLORS.items():
            axis.plot(line[name], line[kind], color=color, marker=".", label=kind)
        axis.axvline(home[name][0], color="#555555", linestyle="--", linewidth=0.8)
        axis.set(xlabel=label)
        axis.set_ylim(bottom=0)
        if not (line["events"] > 0).any():
            say(axis, "no event at any of these")


def formation(metrics: pl.DataFrame) -> Drawn:
    """How a toy's sink forms: error, attention and value ratio, labels, and query-key spike against the step.

    Args:
        metrics: Rows of `metrics.csv`; the evaluations among them are shown.
    """
    data = metrics.filter(pl.col("toy/value_ratio").is_not_null()).sort("step")
    panels = {
        "mean square error": {"val/loss": "validation"},
        "share of attention": {
            "toy/attention_nop": "to null, tokens that rest",
            "toy/attention_active": "to null, the others",
            "toy/inflow_max": "strongest column",
            "toy/inflow_source": "source token",
        },
        "ratio to the other tokens' value, rank": {
            "toy/value_ratio": "value ratio",
            "toy/stable_rank": "stable rank of the update",
        },
        "share of sequences, rule adaptive": {f"toy/label_{name}": name for name in LABEL_COLORS},
        "spectral spike of W_Q and W_K": {"toy/spectral_spike": "sink's block"},
    }
    figure, axes = _axes(1, len(panels), (2.9 * len(panels), 3.6))
    colors = list(TYPE_COLORS.values())
    shown = ["step"]
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        present = {name: text for name, text in lines.items() if name in data.columns}
        shown += present
        for place, (name, text) in enumerate(present.items()):
            axis.plot(
                data["step"],
                data[name],
                label=text,
                marker=".",
                markersize=3,
                color=LABEL_COLORS.get(text, colors[place]),
            )
        axis.set(xlabel="optimizer step", ylabel=title)
        axis.legend(fontsize=7)
    axes[0].set_yscale("log")
    return figure, data.select(shown)


def _axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list]:  # type: ignore[type-arg]
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.ravel(figure.subplots(rows, columns, squeeze=False)))


def say(axis: Axes, text: str, color: str = "black") -> None:
    """A word in the middle of axes that would otherwise be empty without a reason."""
    axis.text(0.5, 0.5, text, transform=axis.transAxes, ha="center", va="center", fontsize=8, color=color)


def _column(table: pl.DataFrame, name: str) -> np.ndarray:  # type: ignore[type-arg]
    return table[name].cast(pl.Float64).to_numpy()
