"""The figure of the effects of edits on single heads."""

from collections.abc import Sequence

import polars as pl

from sinkablate.figures.interventions import COLORS, NAMES, floored, log_scale, position_of_zero
from sinkablate.figures.sinks import TWO_COLUMNS, Drawn, heading
from sinkablate.report.frames import frames, keyed, label_axes, named, some_runs
from sinkablate.report.run import Run


def edit_titles(runs: Sequence[Run]) -> dict[str, str]:
    """The edits that were made in any of the runs, each with its description in plain words.

    They are in their usual order; an edit that this version does not know comes last, under its name.
    """
    names = {edit: edit for run in runs if run.edits is not None for edit in run.edits["edit"].to_list()}
    if not names:
        return {}
    from sinkablate.intervene.edits import all_edits  # imports torch, which is needed only for reports on interventions

    return {edit.name: edit.label for edit in all_edits() if edit.name in names} | {
        name: name for name in names if name not in {edit.name for edit in all_edits()}
    }


def edits(runs: Sequence[Run]) -> Drawn | None:
    """Draw the effect of every edit of every edited head, colored by class, one frame per model.

    The axis is logarithmic and broken: zero effects are drawn at a tick labeled 0.
    """
    shown_runs, part = some_runs([run for run in runs if run.edits is not None])
    if not shown_runs:
        return None
    zero = position_of_zero(pl.concat([run.edits.select("effect") for run in shown_runs if run.edits is not None]))
    titles = edit_titles(shown_runs)
    names = list(titles)
    figure, axes = frames([run.name for run in shown_runs], size=(TWO_COLUMNS, 0.8 + 0.26 * len(names)), columns=1)
    rows = []
    for axis, run in zip(axes, shown_runs, strict=True):
        assert run.edits is not None
        for name in run.edits["class"].unique(maintain_order=True).to_list():
            points = run.edits.filter(pl.col("class") == name)
            y = [names.index(edit) for edit in points["edit"]]
            x = floored(points["effect"], zero)
            axis.plot(x, y, "o", color=COLORS.get(name), markersize=4, alpha=0.6, label=NAMES.get(name, name))
        axis.set_yticks(range(len(names)), list(titles.values()), fontsize=7)
        axis.set_ylim(len(names) - 0.5, -0.5)
        rows.append(named(run.edits, run))
    for axis in axes:
        log_scale(axis, "x", pl.concat(rows, how="vertical_relaxed"), zero)
    label_axes(figure, "relative RMS change of the final patch tokens", "")
    title = heading("How far each edit moves the output: single heads", [run.name for run in shown_runs])
    keyed(figure, axes, "\n".join(filter(None, (title, part))))
    return figure, pl.concat(rows, how="vertical_relaxed")
