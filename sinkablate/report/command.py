"""The command `report`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sinkablate.errors import UserError, require_at_least

if TYPE_CHECKING:
    import polars as pl

    from sinkablate.compare.comparison import Primary
    from sinkablate.figures.maps import Maps
    from sinkablate.report.ablation import Ablation
    from sinkablate.report.run import Run


def report(
    runs: list[str],
    *,
    out: str,
    overwrite: bool = False,
    title: str = "What the attention sinks do",
    rule: str | None = None,
    results: str | None = None,
    metric: str | None = None,
    factors: str | None = None,
    baseline: str | None = None,
    primary: Literal["paired", "welch"] = "paired",
    lower_is_better: bool | None = None,
    margin: float | None = None,
    detect: float | None = None,
    maps: int = 4,
    images: int = 4,
    paper: bool = False,
    trust: bool = False,
) -> str:
    """Write an interactive page, figures (PDF, PNG, CSV) and tables (Markdown, LaTeX) about runs and diagnoses.

    A panel without data is replaced by a note. The page works offline.

    Args:
        runs: Directories of runs of `fit` and outputs of `diagnose` and `intervene`, or folders that hold runs.
        out: Directory to write.
        overwrite: Replace the report that the directory holds.
        title: Title of the page.
        rule: The rule that the figures use and the page shows first; default: causal, or adaptive if no run has an
            event under causal.
        results: Compare the rows of this table, as written by `sweep collect`, instead of the runs.
        metric: The metric to compare, a column of the table; default: accuracy, else loss.
        factors: What defines the cells of the comparison, separated by commas: columns of the table, or configuration
            keys, in full or by their ending; default: variant.
        baseline: The cell that the others are compared with, such as gate=none,registers=0.
        primary: The test that decides: paired by seed, or welch if the runs are not paired.
        lower_is_better: Whether smaller values are better; by default the name of the metric decides, as in `compare`.
        margin: Cells that differ by less are equivalent (TOST), in the units of the metric.
        detect: Compute the number of seeds needed to detect this effect, in the units of the metric.
        maps: Number of heads per run with attention maps; 0 makes none and needs no checkpoint.
        images: Number of probe images with attention maps.
        paper: Also write the figures of arXiv 2606.08105 that the inputs allow into OUT/paper, numbered as there.
        trust: Run the commands named in the configurations to read the images of the maps; only for runs of your own.

    Raises:
        UserError: An option or a run cannot be used.
    """
    from sinkablate.report.ablation import EVENTS, task_metrics
    from sinkablate.report.edits import notes_on_rules
    from sinkablate.report.quality import left_out, shown_metrics, without_mixed_protocols
    from sinkablate.report.runs import read_runs
    from sinkablate.report.writing import Report, check_target, write_report
    from sinkablate.run.directory import require_writable

    for key, value, least in (("maps", maps, 0), ("images", images, 1)):
        require_at_least(value, least, key)
    target = Path(out)
    check_target(target, overwrite)
    require_writable(target, "out")
    shown, damaged = read_runs(runs)
    chosen = _shown_rule(shown, rule)
    options = {"baseline": baseline, "lower_is_better": lower_is_better, "margin": margin, "detect": detect}
    comparison, reason = _comparison(shown, results, metric, factors, primary, options)
    sinks = None if results else _comparison_of(EVENTS, shown, chosen, factors, primary, baseline)
    shown, mixed = without_mixed_protocols(shown)
    evaluated = shown_metrics(shown)
    quality = [
        of_metric.comparison
        for name in ((*task_metrics(shown)[:1], *evaluated) if evaluated else ())
        if (of_metric := _comparison_of(name, shown, chosen, factors, primary, baseline)) is not None
    ]
    shown, attention, without_maps = _maps(shown, chosen, maps, images, trust=trust)
    return write_report(
        target,
        Report(
            runs=shown,
            rule=chosen,
            metric=metric,
            title=title,
            comparison=comparison,
            no_comparison=reason,
            sinks=sinks,
            quality=[*([sinks.comparison] if quality and sinks is not None else []), *quality],
            maps=attention,
            paper=paper,
            notes=[
                *damaged,
                *mixed,
                *left_out(evaluated, quality),
                *_notes_on_unfinished(shown),
                *without_maps,
                *notes_on_rules(shown, chosen),
            ],
        ),
        overwrite=overwrite,
    )


def _notes_on_unfinished(runs: Sequence["Run"]) -> list[str]:
    """One line for each run that diverged or has not finished."""
    return [
        f"{run.name} {'diverged' if run.diverged else 'has not finished'}; its data so far are shown."
        for run in runs
        if not run.finished
    ]


def _shown_rule(runs: Sequence["Run"], rule: str | None) -> str:
    """The rule that was asked for, or else the default rule, or `adaptive` if no run has an event by the default rule.

    Raises:
        UserError: No run has labels of the rule that was asked for.
    """
    from sinkablate.diagnostics.rules import ADAPTIVE_RULE, DEFAULT_RULE
    from sinkablate.report.events import has_events

    known = list(dict.fromkeys(name for run in runs for name in run.rules))
    if rule is not None and known and rule not in known:
        raise UserError(f"rule={rule}: no run has labels by this rule; choose one of {', '.join(known)}")
    return rule or (DEFAULT_RULE if has_events(runs, DEFAULT_RULE) else ADAPTIVE_RULE)


def _comparison(
    runs: Sequence["Run"],
    results: str | None,
    metric: str | None,
    factors: str | None,
    primary: "Primary",
    options: dict[str, Any],
) -> tuple["Ablation | None", str]:
    """The comparison, or the reason why there is none.

    Raises:
        UserError: The user asked for a comparison that cannot be made.
    """
    from sinkablate.compare.command import named_levels
    from sinkablate.compare.table import read_table
    from sinkablate.report.ablation import ablation, refuse_collisions, run_table, task_metrics

    if results is not None and (metric is None or factors is None):
        raise UserError("results: --metric and --factors must name columns of the table")
    names = (factors or "variant").split(",")
    measured = metric or next(iter(task_metrics([run for run in runs if run.kind == "run"])), None)
    if measured is None:
        return None, "No run of fit has a task metric to compare."
    required = any(value is not None for value in (results, metric, factors, *options.values()))
    if not required and len({run.variant for run in runs if run.kind == "run"}) < 2:
        return None, "Nothing to compare: all runs are of one variant."
    try:
        table: pl.DataFrame = read_table(Path(results)) if results is not None else run_table(runs, names)
        if results is None:
            refuse_collisions(table, names)
        return ablation(
            table,
            measured,
            names,
            primary=primary,
            baseline=named_levels(options["baseline"], "baseline"),
            lower_is_better=options["lower_is_better"],
            margin=options["margin"],
            detect=options["detect"],
        ), ""
    except UserError as error:
        if required:
            raise
        return None, f"Nothing to compare: {error}."


def _comparison_of(
    metric: str, runs: Sequence["Run"], rule: str, factors: str | None, primary: "Primary", baseline: str | None
) -> "Ablation | None":
    """The same cells compared by another metric, such as their sink events per image; None if that fails."""
    from sinkablate.compare.command import named_levels
    from sinkablate.report.ablation import ablation, refuse_collisions, run_table

    names = (factors or "variant").split(",")
    try:
        table = run_table(runs, names, rule)
        refuse_collisions(table, names)
        return ablation(
            table,
            metric,
            names,
            primary=primary,
            baseline=named_levels(baseline, "baseline"),
            lower_is_better=None,
            margin=None,
            detect=None,
        )
    except UserError:
        return None


def _maps(
    runs: Sequence["Run"], rule: str, count: int, images: int, *, trust: bool
) -> tuple[list["Run"], dict[str, "Maps"], list[str]]:
    """Make the attention maps of the heads with the most events by a rule, or by `adaptive` in runs without that rule.

    Returns:
        The runs, whose number of tokens is taken from the maps; maps by run name; a line for each run without.
    """
    from collections import Counter
    from dataclasses import replace

    from sinkablate.diagnostics.rules import ADAPTIVE_RULE
    from sinkablate.report.held_maps import held_maps

    maps: dict[str, Maps] = {}
    notes: list[str] = []
    for run in runs if count else ():
        if run.kind == "run" and run.heads is not None and (run.path / "checkpoints").is_dir():
            from sinkablate.diagnose.maps import (
                example_maps,
            )  # imports torch, which is needed only for attention maps of runs

            try:
                counted = rule if rule in run.rules else ADAPTIVE_RULE
                maps[run.name] = example_maps(run.path, run.heads, counted, count, images, trust=trust)
            except UserError as error:
                notes.append(f"No attention maps of {run.name}: {error}")
        if run.name not in maps and (held := held_maps(run)) is not None:
            maps[run.name] = held
    informed = [replace(run, tokens=dict(Counter(maps[run.name].kinds))) if run.name in maps else run for run in runs]
    return informed, maps, notes
