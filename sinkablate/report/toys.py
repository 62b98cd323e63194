"""The figures of the toys, from the runs of a report: what their sinks write and read, when they form, what they cost.

Models are loaded from checkpoints, which imports torch, only if a figure needs them.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from sinkablate.figures.sinks import Drawn
from sinkablate.figures.toys import broadcast_toy, formation_against, nop_toy, pathway_arms
from sinkablate.report.run import Run
from sinkablate.run.directory import last_checkpoint
from sinkablate.toys.formation import FORMED, formation_points, history, intervals

if TYPE_CHECKING:
    from sinkablate.diagnose.model import LoadedModel

VARIED = {"p": ("model.toy.p_nop", "output"), "gamma": ("model.toy.gamma", "update")}
"""Number that the runs differ in -> its key, and the `supervise` of these runs."""
NEEDED = {"toy/attention_nop", "toy/mass"}
PLAIN = {
    "model.toy.attention.score": "softmax",
    "model.toy.attention.sink": "none",
    "model.toy.attention.gate": "none",
    "model.toy.pathway.kind": "none",
    "model.toy.registers": 0,
}
"""Keys and their values in a toy without a mechanism."""
ARMS = {("none", False): "attention alone", ("global", False): "pathway", ("global", True): "pathway and penalty"}
"""Kind of the pathway and whether its penalty has a weight -> name of the arm, from left to right."""
EDITS = {
    "zero_value": "sink: removed",
    "donor_value": "sink: donor",
    "redirect": "sink: redirected",
    "pathway_zero": "pathway: removed",
    "pathway_donor": "pathway: donor",
}
"""Edit -> its name in the figure of the arms."""
SETTINGS = ("model.toy.", "model.optim.", "model.common_mode.", "data.", "trainer.max_", "trainer.gradient_clip")
"""Beginnings of the keys that change the training of a toy."""
SEEDS = ("data.seed",)
"""Keys among them that differ between runs that a figure averages."""
SEQUENCES = 32
"""Number of evaluation sequences on which each model is measured."""


def formation(runs: Sequence[Run]) -> Drawn | None:
    """Draw attention against the step, the step of formation and the final mass, one row per number that varies."""
    panels, omitted = [], 0
    for name, (key, supervise) in VARIED.items():
        measured = [
            run
            for run in _toys(runs, "nop")
            if run.config.get("model.toy.supervise") == supervise
            and run.metrics is not None
            and set(run.metrics.columns) >= NEEDED
        ]
        if alike := _alike(measured, key):
            omitted += len(measured) - len(alike)
            evaluations = pl.concat(
                history(run.metrics, float(run.config[key]), int(run.seed)) for run in alike if run.metrics is not None
            )
            points = formation_points(evaluations)
            steps, masses = (intervals(points, quantity) for quantity in ("formed_step", "final_mass"))
            panels.append((name, evaluations, steps, masses))
    return formation_against(panels, omitted) if panels else None


def values_and_spectrum(runs: Sequence[Run]) -> Drawn | None:
    """Draw the NOP toy at the smallest gamma, where a sink forms, and at gamma = 1, over the seeds of both."""
    key, supervise = VARIED["gamma"]
    toys = [run for run in _toys(runs, "nop") if run.config.get("model.toy.supervise") == supervise]
    by_gamma: dict[float, list[Run]] = {}
    for run in _alike(_with_weights(toys), key):
        by_gamma.setdefault(float(run.config[key]), []).append(run)
    least = min(by_gamma, default=1.0)
    if least == 1 or 1 not in by_gamma:
        return None
    from sinkablate.toys.figure_data import query_key_values, value_norms, views_of

    norms, spectra = [], []
    for gamma in (least, 1.0):
        name = f"gamma = {gamma:g}, {_sink_name(by_gamma[gamma])}"
        for run in by_gamma[gamma]:
            loaded = _load(run)
            (view,) = views_of(loaded.model, loaded.probe_set(SEQUENCES).images)  # type: ignore[misc]
            labels = (pl.lit(name).alias("model"), pl.lit(run.seed).alias("seed"))
            norms.append(value_norms(view).with_columns(*labels))
            spectra.append(query_key_values(loaded.model).with_columns(*labels))
    return nop_toy(pl.concat(norms), pl.concat(spectra))


def broadcast_layers(runs: Sequence[Run]) -> Drawn | None:
    """Draw both layers of the broadcast toy without a mechanism that was trained longest, at its first seed."""
    toys = _with_weights(_toys(runs, "broadcast"))
    if not toys:
        return None
    from sinkablate.toys.figure_data import alignments, update_values, value_norms, views_of

    run = max(toys, key=lambda run: (run.steps or 0, -int(run.seed)))
    loaded = _load(run)
    assert loaded.toy is not None
    views = views_of(loaded.model, loaded.probe_set(SEQUENCES).images)  # type: ignore[misc]
    norms, updates = (pl.concat(measure(view) for view in views) for measure in (value_norms, update_values))
    maps = [view.weights()[0, 0].numpy() for view in views]
    trained = f"{run.steps} steps, seed {run.seed}"
    return broadcast_toy(maps, norms, alignments(loaded.model, loaded.toy.source_direction), updates, trained)


def arms(runs: Sequence[Run]) -> Drawn | None:
    """Draw the edits of the last block of broadcast toys without and with the pathway and its penalty."""
    tables: dict[str, list[pl.DataFrame]] = {}
    for run in runs:
        config, edits = run.config, run.edits
        if config.get("task") != "toy" or config.get("model.toy.task") != "broadcast" or edits is None:
            continue
        weight = float(config.get("model.common_mode.weight") or 0)
        arm = ARMS.get((str(config.get("model.toy.pathway.kind")), weight > 0))
        if arm is not None and "loss_edited" in edits.columns:
            of_sink = edits.filter(pl.col("block") == pl.col("block").max()).select("edit", "loss", "loss_edited")
            tables.setdefault(arm, []).append(
                of_sink.select(pl.lit(arm).alias("arm"), pl.lit(int(run.seed)).alias("seed"), pl.all())
            )
    shown = [arm for arm in ARMS.values() if arm in tables]
    return pathway_arms(pl.concat(t for arm in shown for t in tables[arm]), shown, EDITS) if len(shown) > 1 else None


def _toys(runs: Sequence[Run], task: str) -> list[Run]:
    """The runs of `fit` on a task of the toys that have no mechanism."""
    keys = {"task": "toy", "model.toy.task": task}
    return [
        run
        for run in runs
        if all(run.config.get(key) == value for key, value in keys.items())
        and all(run.config.get(key, value) == value for key, value in PLAIN.items())
    ]


def _alike(runs: Sequence[Run], key: str) -> list[Run]:
    """The largest group of runs that differ in one key, and in nothing else that changes training but their seeds.

    It is empty if no group has two values of the key.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {name: value for name, value in run.config.items() if name.startswith(SETTINGS)}
        for name in (key, *SEEDS):
            settings.pop(name, None)
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(run)
    several = [group for group in groups.values() if len({float(run.config[key]) for run in group}) > 1]
    return max(several, key=len, default=[])


def _sink_name(runs: Sequence[Run]) -> str:
    """Whether the sinks of some runs have formed, by the attention to the null token at the end of training."""
    formed = [float(run.summary.get("toy/attention_nop", 0)) >= FORMED for run in runs]
    return "sink" if all(formed) else f"sink in {sum(formed)} of {len(formed)}" if any(formed) else "no sink"


def _with_weights(runs: Sequence[Run]) -> list[Run]:
    """The runs that have a checkpoint."""
    return [run for run in runs if last_checkpoint(run.path).is_file()]


def _load(run: Run) -> "LoadedModel":
    """The trained model of a run.

    Raises:
        UserError: Its checkpoint is damaged.
    """
    from sinkablate.diagnose.from_run import load_from_run

    return load_from_run(str(run.path))
