"""Figures that show all runs together."""

from collections.abc import Sequence
from math import ceil, isfinite

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.sinks import LABEL_COLORS, TYPE_COLORS, VARIANT_COLORS, Drawn, column, say, whole_numbers
from sinkablate.report.ablation import Ablation, Estimate
from sinkablate.report.events import events_per_image, sinks_by_type, types_caveat
from sinkablate.report.frames import frames, keyed, label_axes
from sinkablate.report.run import Run, kind_names


def labels_by_type(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw events per image by label and token type, mean over the runs of each variant."""
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
    kinds, has_mass = kind_names(runs), {kind for run in runs for kind in run.token_types}
    shown = [
        kind for kind in TYPE_COLORS if kind in has_mass or data.filter(pl.col("token_type") == kind)["events"].sum()
    ]
    for axis, label in zip(axes, LABEL_COLORS, strict=True):
        below = np.zeros(len(names))
        for kind, color in TYPE_COLORS.items():
            height = column(data.filter((pl.col("label") == label) & (pl.col("token_type") == kind)), "events")
            if kind in shown:
                axis.bar(range(len(names)), height, bottom=below, color=color, label=kinds[kind], width=0.75)
            below += height
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
    label_axes(figure, "", f"sink events per image, rule {rule}")
    keyed(figure, axes, types_caveat(runs, rule))
    return figure, data


def stability(runs: Sequence[Run]) -> Drawn | None:
    """Draw the spikes of loss and gradient and the steps that were not finite, one row per run."""
    names = ("loss_spikes", "grad_spikes", "nonfinite_steps")
    logged = [run for run in runs if f"stability/{names[0]}" in run.summary]
    if not logged:
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
            for run in logged
        ]
    )
    texts = [run.name if run.finished else f"{run.name} ({run.state})" for run in logged]
    margin = 0.065 * max(map(len, texts))  # inches for the names, which the frames share
    figure, axes = frames(
        [name.replace("_", " ") for name in names],
        size=(2.2 + margin / len(names), 0.6 + 0.17 * len(logged)),
        share=False,
    )
    for index, (axis, name) in enumerate(zip(axes, names, strict=True)):
        axis.barh(range(len(logged)), data[name], color="#0072B2", height=0.7)
        axis.set_yticks(range(len(logged)), texts if not index else [""] * len(logged), fontsize=7)
        axis.set_ylim(len(logged) - 0.5, -0.5)
        axis.set_xlim(0, max(1.0, 1.05 * float(data[name].max() or 0)))  # type: ignore[arg-type]
        whole_numbers(axis)
        if not column(data, name).any():
            say(axis, "0 in every run")
    return figure, data


def scatter(runs: Sequence[Run], rule: str, metric: str) -> Drawn | None:
    """Draw the task metric against sink events per image, one point per run, colored by variant."""
    rows = [
        {
            "run": run.name,
            "variant": run.variant,
            "finished": run.finished,
            "events": events_per_image(run, rule),
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
    for index, name in enumerate(names):
        for finished in (True, False):
            points = data.filter((pl.col("variant") == name) & (pl.col("finished") == finished))
            color = VARIANT_COLORS[index % len(VARIANT_COLORS)]
            axis.scatter(
                points["events"],
                points[metric],
                color=color,
                facecolor=color if finished else "none",
                s=28,
                marker="os^Dv"[index // len(VARIANT_COLORS) % 5],
                label=name
                if finished or not len(data.filter((pl.col("variant") == name) & pl.col("finished")))
                else None,
            )
    axis.set(xlabel=f"sink events per image, rule {rule}", ylabel=metric)
    axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5), ncols=ceil(len(names) / 14))
    return figure, data


def cells(ablation: Ablation) -> Drawn:
    """Draw the mean of every cell with its interval, and the single runs."""
    figure, (axis,) = frames([""], size=(6.4, 0.8 + 0.3 * len(ablation.cells)))
    for row, cell in enumerate(ablation.cells):
        axis.plot(cell.values, [row] * len(cell.values), "|", color="#777777", markersize=7)
    _intervals(axis, ablation.cells, 0, "#0072B2", "o")
    axis.set_yticks(range(len(ablation.cells)), [cell.name for cell in ablation.cells], fontsize=8)
    axis.set_ylim(len(ablation.cells) - 0.5, -0.5)
    axis.set_xlabel(f"{ablation.comparison.metric}: mean, 95 % interval, single runs")
    return figure, _table(ablation.cells)


def effects(ablation: Ablation) -> Drawn:
    """Draw the differences from the baseline and the interactions with their intervals."""
    rows = [*ablation.differences, *ablation.interactions]
    figure, (axis,) = frames([""], size=(6.4, 0.8 + 0.3 * len(rows)))
    axis.axvline(0, color="black", linewidth=0.8)
    _intervals(axis, ablation.differences, 0, "#0072B2", "o")
    _intervals(axis, ablation.interactions, len(ablation.differences), "#D55E00", "D")
    axis.set_yticks(range(len(rows)), [line.name for line in rows], fontsize=8)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel(
        f"difference in {ablation.comparison.metric} from {ablation.comparison.baseline}, 95 % interval\n"
        "(diamonds: interaction)",
        fontsize=8,
    )
    return figure, _table(rows)


def _intervals(axis: Axes, rows: Sequence[Estimate], first: int, color: str, marker: str) -> None:
    """Draw estimates with their intervals, one per row from row `first`."""
    for row, line in enumerate(rows, first):
        if isfinite(line.low):
            axis.plot([line.low, line.high], [row, row], color=color, linewidth=1.5)
        axis.plot([line.value], [row], marker, color=color, markersize=5)


def _table(rows: Sequence[Estimate]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"name": line.name, "value": line.value, "low": line.low, "high": line.high, "text": line.text}
            for line in rows
        ],
        schema={"name": pl.String, "value": pl.Float64, "low": pl.Float64, "high": pl.Float64, "text": pl.String},
    )
