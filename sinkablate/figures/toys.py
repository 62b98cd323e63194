"""The figures of the toy tasks: what the sink of each writes and reads, when it forms, and what its removal costs."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from numpy.typing import NDArray

from sinkablate.figures.sinks import (
    LABEL_COLORS,
    LIMIT_COLOR,
    TWO_COLUMNS,
    VARIANT_COLORS,
    Drawn,
    column,
    common_legend,
    heading,
    new_axes,
    plain_log,
    say,
    whole_numbers,
)

SINK, OTHERS = LABEL_COLORS["broadcast"], "#777777"
SHOWN_DIRECTIONS = 12
"""Number of singular directions and values of the broadcast figure."""


def nop_toy(norms: pl.DataFrame, spectra: pl.DataFrame) -> Drawn:
    """Draw what the sink of a NOP toy writes, and the query-key spectra of models with and without a sink.

    Args:
        norms: Rows of `value_norms`, with the column `model`.
        spectra: Rows of `query_key_values`, with the column `model`; the models are drawn in their order. Several rows
            of one model and index, from several seeds, become their mean with a band from the least to the greatest.
    """
    models = spectra["model"].unique(maintain_order=True).to_list()
    figure, axes = new_axes(1, 2, (TWO_COLUMNS, 3.1), "The NOP toy: what the sink writes, and what its head looks for")
    _draw_norms(axes[0], f"A  {models[0]}", norms.filter(pl.col("model") == models[0]))
    for color, name in zip(VARIANT_COLORS, models, strict=False):
        of_model = spectra.filter(pl.col("model") == name).group_by("index")
        rows = of_model.agg(_range("value")).sort("index")
        axes[1].fill_between(rows["index"], rows["low"], rows["high"], color=color, alpha=0.2, linewidth=0)
        axes[1].plot(rows["index"], rows["mean"], ".-", color=color, markersize=3, linewidth=0.9, label=name)
    axes[1].set(xlabel="index of the singular value", ylabel="singular value of W_Qᵀ W_K")
    axes[1].set_ylim(bottom=0)
    axes[1].set_title("B  query-key map", fontsize=9, loc="left")
    whole_numbers(axes[1])
    common_legend(figure, axes)
    tables = {"value norm": norms.rename({"norm": "value"}), "query-key singular value": spectra}
    return figure, _joined("quantity", tables, dropped=("block", "head", "sequence", "column"))


def _range(name: str) -> list[pl.Expr]:
    """The mean of a column, its least and its greatest value."""
    values = pl.col(name)
    return [values.mean().alias("mean"), values.min().alias("low"), values.max().alias("high")]


def _joined(key: str, tables: dict[str, pl.DataFrame], dropped: Sequence[str] = ()) -> pl.DataFrame:
    """Put tables below each other, with their names in a first column; cells that a table lacks are null."""
    named = [
        table.select(pl.lit(name).alias(key), pl.all()).drop(dropped, strict=False) for name, table in tables.items()
    ]
    return pl.concat(named, how="diagonal_relaxed")


def broadcast_toy(
    maps: Sequence[NDArray[np.float32]],
    norms: pl.DataFrame,
    alignments: pl.DataFrame,
    updates: pl.DataFrame,
    trained: str = "",
) -> Drawn:
    """Draw the two blocks of a broadcast toy, one per row: map, norms of values, query-key geometry, update.

    Args:
        maps: Attention of each block on one sequence, (N, N); colors reach from 0 to its largest value.
        norms: Rows of `value_norms`.
        alignments: Rows of `alignments` with the direction that picks the source.
        updates: Rows of `update_values`.
        trained: How the model was trained, for the title.
    """
    title = heading("The broadcast toy, layer by layer", [trained] if trained else [])
    figure, axes = new_axes(len(maps), 4, (TWO_COLUMNS, 2.1 * len(maps) + 0.8), title)
    for block, weights in enumerate(maps):
        row = axes[4 * block : 4 * block + 4]
        row[0].imshow(weights, vmin=0, vmax=weights.max(), cmap="magma", interpolation="nearest")
        row[0].set_title(f"{'A  attention' if block == 0 else ''}\nlargest {weights.max():.2f}", fontsize=9, loc="left")
        row[0].set(xlabel="key", ylabel=f"layer {block + 1}\nquery")
        _draw_norms(row[1], "B  values" if block == 0 else "", norms.filter(pl.col("block") == block))
        _draw_alignments(row[2], alignments.filter(pl.col("block") == block).sort("index"))
        _draw_update(row[3], updates.filter(pl.col("block") == block).sort("index"))
    for axis, title in {2: "C  query-key map", 3: "D  update"}.items():
        axes[axis].set_title(title, fontsize=9, loc="left")
    common_legend(figure, axes)
    tables = {
        "A attention": pl.concat(_map_rows(block, weights) for block, weights in enumerate(maps)),
        "B value norm": norms.rename({"norm": "value"}),
        "C alignment with u": alignments,
        "D singular value of the update": updates,
    }
    return figure, _joined("panel", tables, dropped=("head",))


def _map_rows(block: int, weights: NDArray[np.float32]) -> pl.DataFrame:
    """An attention map (N, N) as rows `block`, `row`, `column`, `value`."""
    row, column = np.indices(weights.shape).reshape(2, -1)
    return pl.DataFrame({"block": block, "row": row, "column": column, "value": weights.ravel()})


def _draw_norms(axis: Axes, title: str, norms: pl.DataFrame) -> None:
    """Draw the distribution of value norms, the sinks' and all others', as shares of each group."""
    groups = {text: column(norms.filter(pl.col("sink") == sink), "norm") for text, sink in _GROUPS.items()}
    edges = np.linspace(0, 1.02 * max(float(values.max()) for values in groups.values()), 41).tolist()
    for (text, values), color in zip(groups.items(), (SINK, OTHERS), strict=True):
        weights = np.full(len(values), 1 / max(1, len(values)))
        axis.hist(values, edges, weights=weights, color=color, alpha=0.7, label=text)
    medians = " and ".join(f"{np.median(values):.2g}" for values in groups.values())
    axis.set_title(f"{title}\nmedians {medians}".strip(), fontsize=9, loc="left")
    axis.set(xlabel="norm of what the value writes", ylabel="share of the group")


_GROUPS = {"sink": True, "other tokens": False}


def _draw_alignments(axis: Axes, rows: pl.DataFrame) -> None:
    """Draw how well each singular direction agrees with the direction that picks the source."""
    rows = rows.filter(pl.col("index") <= SHOWN_DIRECTIONS)
    for side, color, shift in (("key", SINK, -0.2), ("query", VARIANT_COLORS[0], 0.2)):
        axis.bar(column(rows, "index") + shift, column(rows, side), 0.4, color=color, label=f"{side} side")
    axis.set(xlabel="direction of W_Qᵀ W_K", ylabel="|cos| with u", ylim=(0, 1.02))
    whole_numbers(axis)


def _draw_update(axis: Axes, rows: pl.DataFrame) -> None:
    """Draw the singular values of the update relative to the largest: median and 10th to 90th percentile."""
    rows = rows.filter(pl.col("index") <= SHOWN_DIRECTIONS)
    axis.fill_between(rows["index"], rows["low"], rows["high"], color=SINK, alpha=0.25, linewidth=0)
    axis.plot(rows["index"], rows["median"], ".-", color=SINK, markersize=4)
    axis.set(xlabel="singular value", ylabel="relative to the first", ylim=(0, 1.02))
    whole_numbers(axis)


def formation_against(
    panels: Sequence[tuple[str, pl.DataFrame, pl.DataFrame, pl.DataFrame]], omitted: int = 0
) -> Drawn:
    """Draw when the sink of a NOP toy forms and how much attention it ends with, one row per varied number.

    Args:
        panels: For each number its name, the evaluations (rows of `history`), and the `intervals` of `formed_step` and
            `final_mass`.
        omitted: Number of runs that are not shown, because their other settings differ.
    """
    noun = "run" if omitted == 1 else "runs"
    title = heading(
        "When the sink of the NOP toy forms", [f"{omitted} {noun} with other settings omitted"] if omitted else []
    )
    figure, axes = new_axes(len(panels), 3, (TWO_COLUMNS, 2.4 * len(panels) + 0.3), title)
    tables = []
    for number, (name, evaluations, steps, masses) in enumerate(panels):
        row = axes[3 * number : 3 * number + 3]
        _draw_curves(row[0], name, evaluations)
        _draw_intervals(row[1], name, steps, "step at which the sink forms")
        never = steps.filter(pl.col("defined") < pl.col("runs"))
        if len(never):
            counts = ", ".join(f"{n['value']:g}: {n['runs'] - n['defined']} of {n['runs']}" for n in never.to_dicts())
            row[1].set_title(f"no sink at {name} = {counts}", fontsize=8)
        _draw_intervals(row[2], name, masses, "mass of the strongest column")
        row[2].set_ylim(0, 1)
        tables += [
            table.select(pl.lit(name).alias("varied"), pl.lit(quantity).alias("quantity"), pl.all())
            for quantity, table in (("formed_step", steps), ("final_mass", masses))
        ]
    return figure, pl.concat(tables)


def _draw_curves(axis: Axes, name: str, evaluations: pl.DataFrame) -> None:
    """Draw the attention to the null token against the step: mean over seeds, and a band from the least to the most."""
    values = evaluations["value"].unique().sort().to_list()
    for color, value in zip(VARIANT_COLORS, values, strict=False):
        rows = evaluations.filter(pl.col("value") == value).group_by("step").agg(_range("attention")).sort("step")
        done = rows["step"] + 1  # steps count from 0, which a logarithmic axis cannot show
        axis.fill_between(done, rows["low"], rows["high"], color=color, alpha=0.2, linewidth=0)
        axis.plot(done, rows["mean"], color=color, linewidth=1, label=f"{name} = {value:g}")
    axis.set(xlabel="optimizer steps done", ylabel="attention of resting\ntokens to null", ylim=(0, 1))
    plain_log(axis, "x")
    axis.legend(fontsize=7, loc="upper left", handlelength=1.2, frameon=False)


def _draw_intervals(axis: Axes, name: str, rows: pl.DataFrame, label: str) -> None:
    """Draw means with 95 % intervals over seeds against the varied number, evenly spaced in order."""
    place = np.arange(len(rows))
    mean, low, high = (column(rows, part) for part in ("mean", "low", "high"))
    axis.errorbar(
        place, mean, (mean - low, high - mean), fmt="o-", color="black", markersize=3, linewidth=0.9, capsize=2
    )
    axis.set_xticks(place, [f"{value:g}" for value in rows["value"]])
    axis.set(xlabel=name, ylabel=label)
    axis.set_ylim(bottom=0)


def pathway_arms(edits: pl.DataFrame, arms: Sequence[str], labels: dict[str, str]) -> Drawn:
    """Draw how the error of a broadcast toy grows when its sink or its pathway is removed or replaced, arm by arm.

    Args:
        edits: One row per run and edit: `arm`, `seed`, `edit`, `loss`, `loss_edited`.
        arms: The arms from left to right.
        labels: Edit to its name in the figure, in the order of the groups; only these are drawn.
    """
    figure, (axis,) = new_axes(1, 1, (TWO_COLUMNS, 3.2), "The broadcast toy: what the error depends on")
    width = 0.8 / len(arms)
    ratio = (pl.col("loss_edited") / pl.col("loss")).alias("ratio")
    data = edits.filter(pl.col("edit").is_in(list(labels))).with_columns(ratio)
    for number, (arm, color) in enumerate(zip(arms, VARIANT_COLORS, strict=False)):
        for group, edit in enumerate(labels):
            values = column(data.filter((pl.col("arm") == arm) & (pl.col("edit") == edit)), "ratio")
            place = group + (number - (len(arms) - 1) / 2) * width
            if len(values):
                axis.bar(place, values.mean() - 1, 0.9 * width, 1, color=color, alpha=0.5)
                axis.plot(np.full(len(values), place), values, ".", color=color, markersize=4)
        axis.plot([], [], "s", color=color, label=arm)
    if not len(data):
        say(axis, "no edit")
    axis.axhline(1, color=LIMIT_COLOR, linewidth=0.8)
    axis.set_xticks(range(len(labels)), list(labels.values()), fontsize=7)
    axis.set_ylabel("error after the edit / before")
    plain_log(axis)
    common_legend(figure, [axis])
    return figure, data.sort("arm", "edit", "seed")
