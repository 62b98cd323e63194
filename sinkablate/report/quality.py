"""What the evaluations of the runs measured: next to sink events in one figure, and all metrics in one table."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from typing import Any

import polars as pl

from sinkablate.compare.comparison import Comparison
from sinkablate.compare.numbers import NA, decimals, number
from sinkablate.compare.sheets import Sheet
from sinkablate.figures.sinks import VARIANT_COLORS, Drawn
from sinkablate.files.suggestions import first_few
from sinkablate.report.ablation import short_name
from sinkablate.report.events import events_per_image
from sinkablate.report.frames import frames, keyed, label_axes
from sinkablate.report.run import Run, evaluated
from sinkablate.run.evaluations import PROTOCOL

SHOWN = (
    "segmentation/miou",
    "discovery/corloc",
    "knn/acc1",
    "linear/acc1",
    "quantization/acc1_drop",
    "quantization/cosine",
)
"""The numbers of an evaluation that the figure and the table show, dense tasks first."""


def shown_metrics(runs: Sequence[Run]) -> list[str]:
    """Return the names in `SHOWN` that a run was evaluated by."""
    return [name for name in SHOWN if any(name in evaluated(run) for run in runs)]


def without_mixed_protocols(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """Leave out the numbers of each task that the runs were not all measured by with the same protocol.

    Returns:
        The runs, and a line for each such task.
    """
    protocols: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, value in run.evaluation.items():
            task, _, rest = name.partition("/")
            if rest == PROTOCOL:
                protocols.setdefault(task, {})[str(value)] = None
    mixed = {task: list(names) for task, names in protocols.items() if len(names) > 1}
    notes = [
        f"The numbers of {task} are left out: they were measured by different protocols ({'; '.join(names)}) and "
        "cannot be compared."
        for task, names in mixed.items()
    ]

    def kept(run: Run) -> dict[str, float | str | None]:
        return {name: value for name, value in run.evaluation.items() if name.partition("/")[0] not in mixed}

    return [replace(run, evaluation=kept(run)) for run in runs], notes


def quality(runs: Sequence[Run], rule: str) -> Drawn | None:
    """Draw each number of the evaluations against sink events per image, one point per run, colored by variant."""
    rows = [
        {
            "run": run.name,
            "variant": run.variant,
            "metric": name,
            "events": events_per_image(run, rule),
            "value": evaluated(run)[name],
        }
        for name in shown_metrics(runs)
        for run in runs
        if rule in run.rules and name in evaluated(run)
    ]
    if not rows:
        return None
    data = pl.DataFrame(rows)
    metrics = data["metric"].unique(maintain_order=True).to_list()
    figure, axes = frames(metrics, size=(2.4, 2.2), share=False, columns=3)
    for index, variant in enumerate(data["variant"].unique(maintain_order=True)):
        for axis, metric in zip(axes, metrics, strict=True):
            points = data.filter(variant=variant, metric=metric)
            axis.scatter(
                points["events"],
                points["value"],
                color=VARIANT_COLORS[index % len(VARIANT_COLORS)],
                marker="os^Dv"[index // len(VARIANT_COLORS) % 5],
                s=18,
                label=variant,
            )
    label_axes(figure, f"sink events per image, rule {rule}", "")
    keyed(figure, axes)
    return figure, data


def left_out(evaluated: Sequence[str], comparisons: Sequence[Comparison]) -> list[str]:
    """Return a line that names the evaluated numbers that could not be compared, if there are any."""
    names = [name for name in evaluated if name not in {comparison.metric for comparison in comparisons}]
    if not names:
        return []
    return [
        f"The table of all metrics leaves out {first_few(names)}, which were measured in one cell only or not in the "
        "baseline."
    ]


def quality_sheet(comparisons: Sequence[Comparison]) -> Sheet | None:
    """Return one row per cell and one column per metric: the mean and standard deviation over runs.

    Args:
        comparisons: One comparison of the same cells for each metric; None is returned if there is none.
    """
    if not comparisons:
        return None
    first = comparisons[0]
    cells = list(dict.fromkeys(cell.levels for comparison in comparisons for cell in comparison.cells))
    return Sheet(
        f"Mean ± standard deviation over runs; *: differs from {short_name(first.baseline, first.factors)} "
        f"(p < .05 after Holm over the cells, {first.primary} test)",
        (*first.factors, *(comparison.metric for comparison in comparisons)),
        tuple((*levels, *(_text(comparison, levels) for comparison in comparisons)) for levels in cells),
        len(first.factors),
    )


def _text(comparison: Comparison, levels: tuple[str, ...]) -> str:
    places = decimals(comparison)
    for cell in comparison.cells:
        if cell.levels == levels:
            spread = f" ± {number(cell.sd, places)}" if isfinite(cell.sd) else ""
            star = "*" if cell.name in _established(comparison) else ""
            return f"{number(cell.mean.value, places)}{spread}{star}"
    return NA


def _established(comparison: Comparison) -> set[str]:
    """Names of the cells whose difference from the baseline is established."""
    return {difference.cell for difference in comparison.differences if difference.higher is not None}


def page_quality(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return the numbers of the table as plain values, one row per metric and cell."""

    def plain(value: float) -> float | None:
        return value if isfinite(value) else None

    return [
        {
            "metric": comparison.metric,
            **dict(zip(comparison.factors, cell.levels, strict=True)),
            "runs": cell.n,
            "mean": plain(cell.mean.value),
            "sd": plain(cell.sd),
            "low": plain(cell.mean.low),
            "high": plain(cell.mean.high),
            "differs from baseline": cell.name in _established(comparison),
        }
        for comparison in comparisons
        for cell in comparison.cells
    ]
