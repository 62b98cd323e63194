"""The figure of what edits of single heads do, and the names of the edits in plain words."""

from collections.abc import Sequence

import polars as pl

from sinkablate.figures.interventions import COLORS, ORDER
from sinkablate.figures.sinks import Drawn
from sinkablate.report.events import column
from sinkablate.report.frames import frames, keyed, label_axes, named, some_runs
from sinkablate.report.run import Run

EDIT_NAMES = {
    "zero_value": "sink value set to zero",
    "mean_value": "sink value set to its mean over other images",
    "donor_value": "sink value taken from another image",
    "rotated_value": "sink value in a random direction, same size (control)",
    "ordinary_value": "sink value replaced by an ordinary token's",
    "redirect": "sink column removed (attention knockout)",
    "random_value": "value of a random other token set to zero (control)",
    "random_head": "sink value of a head that is not a sink set to zero (control)",
    "register_zero": "register values set to zero",
    "register_mean": "register values set to their mean over other images",
    "register_donor": "register values taken from another image",
    "pathway_zero": "pathway state set to zero",
    "pathway_mean": "pathway state set to its mean over other images",
    "pathway_donor": "pathway state taken from another image",
}
"""What each edit of `intervene` does."""


def edit_order(runs: Sequence[Run]) -> list[str]:
    """The edits that were made in any of the runs, in their usual order, unknown ones last."""
    made = {edit: None for run in runs if run.edits is not None for edit in run.edits["edit"].to_list()}
    return [*(edit for edit in ORDER if edit in made), *(edit for edit in made if edit not in ORDER)]


def edits(runs: Sequence[Run]) -> Drawn | None:
    """Draw the effect of every edit of every edited head, colored by class, one frame per model."""
    some, part = some_runs([run for run in runs if run.edits is not None])
    if not some:
        return None
    names = edit_order(some)
    figure, axes = frames([run.name for run in some], size=(4.2, 0.8 + 0.26 * len(names)), columns=2)
    rows = []
    for axis, run in zip(axes, some, strict=True):
        assert run.edits is not None
        for name in run.edits["class"].unique(maintain_order=True).to_list():
            points = run.edits.filter(pl.col("class") == name)
            y = [names.index(edit) for edit in points["edit"]]
            axis.plot(column(points, "effect"), y, "o", color=COLORS.get(name), markersize=4, alpha=0.6, label=name)
        axis.set_yticks(range(len(names)), [EDIT_NAMES.get(edit, edit) for edit in names], fontsize=7)
        axis.set_ylim(len(names) - 0.5, -0.5)
        rows.append(named(run.edits, run))
    axes[0].set_xlim(left=0)
    label_axes(figure, "relative RMS change of the final patch tokens", "")
    keyed(figure, axes, part)
    return figure, pl.concat(rows, how="vertical_relaxed")
