"""Panels of a report that show all runs together, as figures for paper."""

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import LABEL_COLORS, TYPE_COLORS, VARIANT_COLORS, Drawn, say, whole_numbers
from sinkablate.report.ablation import Ablation, Estimate
from sinkablate.report.contents import column, sinks, sinks_by_type, types_caveat
from sinkablate.report.frames import frames, keyed, label_axes
from sinkablate.report.runs import Run

Lines = Sequence[Run]


def labels_by_type(runs: Lines, rule: str) -> Drawn | None:
    """Panel 8b: events per image by label and token type, mean over the runs of a variant."""
    rows = [
        {"variant": run.variant, "label": label, "token_type": kind, "events": value}
        for run in runs
        if rule in run.rules
        for label, shares in sinks_by_type(run, rule).items()
        for kind, value in shares.items()
    ]
    if not rows:
        return None
    data = (
        pl.DataFrame(rows)
        .group_by("variant", "label", "token_type", maintain_order=True)
        .agg(pl.col("events").mean(), pl.len().alias("runs"))
    )
    names = data["variant"].unique(maintain_order=True).to_list()
    figure, axes = frames(
        list(LABEL_COLORS), size=(max(2.6, 0.5 + 0.3 * len(names)), 2.4 + 0.055 * max(map(len, names)))
    )  # for the slanted names
    for axis, label in zip(axes, LABEL_COLORS, strict=True):
        below = np.zeros(len(names))
        for kind, color in TYPE_COLORS.items():
            height = column(data.filter((pl.col("label") == label) & (pl.col("token_type") == kind)), "events")
            if height.any():
                axis.bar(range(len(names)), height, bottom=below, color=color, label=kind, width=0.75)
            below += height
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    label_axes(figure, "", f"events per image, rule {rule}")
    keyed(figure, axes, types_caveat(runs, rule))
    return figure, data


def stability(runs: Lines) -> Drawn | None:
    """Panel 8c: spikes of loss and gradient and steps that were not finite, a row a run."""
    names = ("loss_spikes", "grad_spikes", "nonfinite_steps")
    some = [run for run in runs if f"stability/{names[0]}" in run.summary]
    if not some:
        return None
    data = pl.DataFrame(
        [
            {
                "run": run.name,
                "variant": run.variant,
                "finished": run.finished,
                "diverged": run.diverged,
                **{name: float(run.summary.get(f"stability/{name}") or 0) for name in names},
            }
            for run in some
        ]
    )
    texts = [
        f"{run.name} ({'diverged' if run.diverged else 'unfinished'})" if not run.finished else run.name for run in some
    ]
    beside = 0.065 * max(map(len, texts))  # inches that the names take, which the frames share
    figure, axes = frames(
        [name.replace("_", " ") for name in names],
        size=(2.2 + beside / len(names), 0.6 + 0.17 * len(some)),
        share=False,
    )
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.barh(range(len(some)), data[name], color="#0072B2", height=0.7)
        axis.set_yticks(range(len(some)), texts if not place else [""] * len(some), fontsize=7)
        axis.set_ylim(len(some) - 0.5, -0.5)
        axis.set_xlim(0, max(1.0, 1.05 * float(data[name].max() or 0)))  # type: ignore[arg-type]
        whole_numbers(axis)
        if not column(data, name).any():
            say(axis, "none in any run")
    return figure, data


def scatter(runs: Lines, rule: str, metric: str) -> Drawn | None:
    """Panel 6: task metric against events per image, one point a run, colored by variant."""
    rows = [
        {
            "run": run.name,
            "variant": run.variant,
            "finished": run.finished,
            "events": sum(value for name, value in sinks(run, rule).items() if name in LABEL_COLORS),
            metric: float(run.summary[metric]),
        }
        for run in runs
        if rule in run.rules and isinstance(run.summary.get(metric), int | float)
    ]
    if not rows:
        return None
    data = pl.DataFrame(rows)
    figure, (axis,) = frames([""], size=(5.2, 3.4))
    names = data["variant"].unique(maintain_order=True).to_list()
    for place, name in enumerate(names):
        for finished in (True, False):
            some = data.filter((pl.col("variant") == name) & (pl.col("finished") == finished))
            color = VARIANT_COLORS[place % len(VARIANT_COLORS)]
            axis.scatter(
                some["events"],
                some[metric],
                color=color,
                facecolor=color if finished else "none",
                s=28,
                marker="os^Dv"[place // len(VARIANT_COLORS) % 5],
                label=name
                if finished or not len(data.filter((pl.col("variant") == name) & pl.col("finished")))
                else None,
            )
    axis.set(xlabel=f"events per image, rule {rule}", ylabel=metric)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=ceil(len(names) / 14))
    return figure, data


def cells(made: Ablation) -> Drawn:
    """Panel 7: mean of every cell with its interval, and the single runs."""
    figure, (axis,) = frames([""], size=(6.4, 0.8 + 0.3 * len(made.cells)))
    for place, each in enumerate(made.cells):
        axis.plot(each.values, [place] * len(each.values), "|", color="#777777", markersize=7)
    _intervals(axis, made.cells, 0, "#0072B2", "o")
    axis.set_yticks(range(len(made.cells)), [each.name for each in made.cells], fontsize=8)
    axis.set_ylim(len(made.cells) - 0.5, -0.5)
    axis.set_xlabel(f"{made.comparison.metric}: mean, 95 % interval, single runs")
    return figure, _table(made.cells)


def effects(made: Ablation) -> Drawn:
    """Panel 8: differences to the baseline and interactions with their intervals."""
    rows = [*made.differences, *made.interactions]
    figure, (axis,) = frames([""], size=(6.4, 0.8 + 0.3 * len(rows)))
    axis.axvline(0, color="black", linewidth=0.8)
    _intervals(axis, made.differences, 0, "#0072B2", "o")
    _intervals(axis, made.interactions, len(made.differences), "#D55E00", "D")
    axis.set_yticks(range(len(rows)), [each.name for each in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(
        f"difference in {made.comparison.metric} to {made.comparison.baseline}, 95 % interval\n(diamonds: interaction)",
        fontsize=8,
    )
    return figure, _table(rows)


def _intervals(axis: Axes, rows: Sequence[Estimate], first: int, color: str, marker: str) -> None:
    for place, each in enumerate(rows, first):
        if isfinite(each.low):
            axis.plot([each.low, each.high], [place, place], color=color, linewidth=1.5)
        axis.plot([each.value], [place], marker, color=color, markersize=5)


def _table(rows: Sequence[Estimate]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"name": each.name, "value": each.value, "low": each.low, "high": each.high, "text": each.text}
            for each in rows
        ],
        schema={"name": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "text": pl.String},
    )
