"""The figure of the effects of edits on single heads."""

from collections.abc import Sequence

import polars as pl
from matplotlib.axes import Axes

from sinkablate.figures.interventions import COLORS, NAMES, floored, log_scale, position_of_zero
from sinkablate.figures.sinks import TWO_COLUMNS, Drawn, heading
from sinkablate.report.frames import frames, keyed, label_axes, named
from sinkablate.report.panels import by_variant
from sinkablate.report.reading import EDIT_COLUMNS
from sinkablate.report.run import Run
from sinkablate.run.schema import FINAL_TOKENS


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
    """Draw the effect of every edit of every edited head, colored by class, one frame per variant.

    The classes are labels by the rule of the intervention, which the title names. For a variant with several runs, a
    bar reaches from the least to the greatest median of the runs. The axis is logarithmic and broken: zero effects are
    drawn at a tick labeled 0.
    """
    groups = by_variant([run for run in runs if run.edits is not None])
    if not groups:
        return None
    shown_runs = [run for group in groups.values() for run in group]
    data = pl.concat([_table(run) for run in shown_runs], how="vertical_relaxed")
    zero = position_of_zero(data)
    titles = edit_titles(shown_runs)
    names = [""] if len(groups) == 1 else list(groups)  # the title of the figure names a single variant
    figure, axes = frames(names, size=(TWO_COLUMNS, 0.8 + 0.26 * len(titles)), columns=1)
    for axis, group in zip(axes, groups.values(), strict=True):
        _draw_variant(axis, data.filter(pl.col("run").is_in([run.name for run in group])), list(titles), zero)
        axis.set_yticks(range(len(titles)), list(titles.values()), fontsize=7)
        axis.set_ylim(len(titles) - 0.5, -0.5)
        log_scale(axis, "x", data, zero)
    tokens = {run.final_tokens for run in shown_runs}
    label_axes(figure, f"relative RMS change of the {tokens.pop() if len(tokens) == 1 else FINAL_TOKENS}", "")
    rules = " or ".join(dict.fromkeys(run.edits_rule for run in shown_runs if run.edits_rule))
    keyed(figure, axes, heading("How far each edit moves the output: single heads", groups, rules))
    return figure, data


def notes_on_rules(runs: Sequence[Run], rule: str) -> list[str]:
    """One line for each run whose edited heads are labeled by another rule than that of the report."""
    return [
        f"The edited heads of {run.name} are labeled by rule {run.edits_rule}, that of the intervention; "
        f"the other figures use rule {rule}."
        for run in runs
        if run.edits is not None and run.edits_rule not in ("", rule)
    ]


def _table(run: Run) -> pl.DataFrame:
    """The effects of the edits of a run."""
    assert run.edits is not None
    return named(run.edits.select(EDIT_COLUMNS), run)


def _draw_variant(axis: Axes, data: pl.DataFrame, names: Sequence[str], zero: float) -> None:
    """Draw the heads of all runs of a variant and, for several runs, the range of their medians."""
    classes = data["class"].unique(maintain_order=True).to_list()
    several = data["run"].n_unique() > 1
    for position, name in enumerate(classes):
        points = data.filter(pl.col("class") == name)
        offset = 0.22 * (position - (len(classes) - 1) / 2)
        y, x = [names.index(edit) + offset for edit in points["edit"]], floored(points["effect"], zero)
        axis.plot(x, y, "o", color=COLORS.get(name), markersize=4, alpha=0.6, label=NAMES.get(name, name))
        medians = points.group_by("edit", "run", maintain_order=True).agg(pl.col("effect").median())
        for (edit,), of_runs in medians.group_by("edit") if several else ():
            low, high = floored(pl.Series([of_runs["effect"].min(), of_runs["effect"].max()]), zero)
            row = names.index(str(edit)) + offset
            axis.plot([low, high], [row, row], "|-", color=COLORS.get(name), linewidth=1.4, markersize=7)
