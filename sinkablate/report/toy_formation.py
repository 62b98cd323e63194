"""When the sink of the NOP toy forms, from the runs of a report that differ in p or in gamma."""

from collections.abc import Sequence

import polars as pl

from sinkablate.figures.sinks import Drawn
from sinkablate.figures.toys import formation_against
from sinkablate.report.run import Run
from sinkablate.toys.formation import formation_points, history, intervals

VARIED = {"p": ("model.toy.p_nop", "output"), "gamma": ("model.toy.gamma", "update")}
"""Number that the runs differ in -> its key, and the `supervise` of these runs."""
NEEDED = {"toy/attention_nop", "toy/mass"}


def toy_formation(runs: Sequence[Run]) -> Drawn | None:
    """Draw attention against the step, the step of formation and the final mass, one row per number that varies."""
    panels = []
    for name, (key, supervise) in VARIED.items():
        tables = [
            history(run.metrics, float(run.config[key]), int(run.seed))
            for run in runs
            if run.config.get("task") == "toy"
            and run.config.get("model.toy.task") == "nop"
            and run.config.get("model.toy.supervise") == supervise
            and run.metrics is not None
            and set(run.metrics.columns) >= NEEDED
        ]
        evaluations = pl.concat(tables) if tables else pl.DataFrame({"value": []})
        if evaluations["value"].n_unique() > 1:
            points = formation_points(evaluations)
            steps, masses = (intervals(points, quantity) for quantity in ("formed_step", "final_mass"))
            panels.append((name, evaluations, steps, masses))
    return formation_against(panels) if panels else None
