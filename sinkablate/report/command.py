"""The verb `report`, from its arguments to the files it leaves."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sinkablate.errors import UserError

if TYPE_CHECKING:
    import polars as pl

    from sinkablate.compare.comparison import Primary
    from sinkablate.figures.maps import Maps
    from sinkablate.figures.sinks import Drawn
    from sinkablate.report.ablation import Ablation
    from sinkablate.report.runs import Run

MARKER, PAGE = "report.json", "index.html"
"""By the first, written last, a report is known."""
LACKS = {
    "handoff": "No run holds a table of blocks.",
    "frequency": "No run holds a table of heads.",
    "atlas": "No run holds value ratios.",
    "norms": "No run holds a table of blocks.",
    "formation": "No run was measured while it trained.",
    "scatter": "No run has a task metric and labels.",
    "labels": "No run holds labels.",
    "stability": "No run logged its stability.",
    "sensitivity": "No diagnosis is among the runs: python -m sinkablate diagnose --run … measures its thresholds.",
    "maps": "No attention maps: they need a run with a checkpoint and its data, or a diagnosis (and --maps above 0).",
}
"""Panel to what it says where nothing is there to show."""
FIGURES = {"norms": "token_norms", "labels": "labels_by_type"}
"""Panels whose figure has another name."""


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
    trust: bool = False,
) -> str:
    """Write one interactive page, figures (PDF, PNG, CSV) and tables (Markdown, LaTeX) of runs and diagnoses.

    What is missing drops a panel with a note. The page needs no network.

    Args:
        runs: Directories of runs of `fit` and outputs of `diagnose`, or folders that hold them.
        out: Directory to write.
        overwrite: Replace the report that it holds.
        title: Of the page.
        rule: The rule shown first, and in the figures; causal, or adaptive where no run has a causal event.
        results: A table of runs (`sweep collect`) to compare instead of the runs given.
        metric: What is compared: a column of the table; accuracy or loss by default.
        factors: What makes the cells, with commas between: columns, or configuration keys by their ending.
        baseline: The cell to compare with, as gate=none,registers=0.
        primary: The test that counts: paired by the column seed, or welch, which other people's tables need.
        lower_is_better: Smaller is better; by default of a metric that ends in loss.
        margin: Cells that differ by less are the same (TOST), in the metric's units.
        detect: An effect to say how many seeds would find it, in the metric's units.
        maps: Attention maps are made of so many heads of each run; 0 makes none, and needs no checkpoint.
        images: ... on so many of its probe images.
        trust: For the maps, run the commands that the configurations of the runs name: the runs are yours.

    Raises:
        UserError: For everything that cannot be done as asked.
    """
    from sinkablate.report.runs import read_runs
    from sinkablate.run.directory import require_writable

    for key, value, least in (("maps", maps, 0), ("images", images, 1)):
        if value < least:
            raise UserError(f"{key} must be at least {least}, got {value}")
    target = Path(out)
    _check_target(target, overwrite)
    require_writable(target, "out")
    found, damaged = read_runs(runs)
    notes = [
        f"{run.name} {'diverged' if run.diverged else 'has not finished'}; what it holds is shown."
        for run in found
        if not run.finished
    ]
    made, said = _ablation(
        found,
        results,
        metric,
        factors,
        primary,
        {"baseline": baseline, "lower_is_better": lower_is_better, "margin": margin, "detect": detect},
    )
    shown = _shown_rule(found, rule)
    attention, faults = _maps(found, maps, images, trust=trust)
    return _write(
        target, found, made, said, attention, title=title, rule=shown, metric=metric, notes=[*damaged, *notes, *faults]
    )


def _check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but a report."""
    if not str(target) or str(target) == ".":
        raise UserError("out is empty: name a directory to write")
    if target.is_dir() and any(target.iterdir()):
        if not (target / MARKER).exists():
            raise UserError(f"out={target} holds something that is no report; choose another --out")
        if not overwrite:
            raise UserError(f"out={target} holds a report; choose another --out, or give --overwrite true")


def _shown_rule(runs: Sequence["Run"], rule: str | None) -> str:
    """The rule that was named; else the default one, or `adaptive` where no run has an event of it.

    Raises:
        UserError: No run has labels of that rule.
    """
    from sinkablate.diagnostics.rules import ADAPTIVE_RULE, DEFAULT_RULE

    known = list(dict.fromkeys(name for run in runs for name in run.rules))
    if rule is not None and known and rule not in known:
        raise UserError(f"rule={rule}: no run has labels of this rule; choose one of {', '.join(known)}")
    return rule or (DEFAULT_RULE if any(_has_events(run, DEFAULT_RULE) for run in runs) else ADAPTIVE_RULE)


def _has_events(run: "Run", rule: str) -> bool:
    from sinkablate.report.contents import sinks

    return rule in run.rules and sum(sinks(run, rule).values()) > 0


def _ablation(
    runs: Sequence["Run"],
    results: str | None,
    metric: str | None,
    factors: str | None,
    primary: "Primary",
    asked: dict[str, Any],
) -> tuple["Ablation | None", str]:
    """The comparison, or why there is none; what the user asked for by name and cannot be had is an error."""
    from sinkablate.compare.command import named_levels
    from sinkablate.compare.table import read_table
    from sinkablate.report.ablation import ablation, run_table, task_metrics

    if results is not None and (metric is None or factors is None):
        raise UserError("results needs --metric and --factors, columns of the table")
    names = (factors or "variant").split(",")
    measured = metric or next(iter(task_metrics([run for run in runs if run.kind == "run"])), None)
    if measured is None:
        return None, "No run of fit has a task metric to compare."
    try:
        table: pl.DataFrame = read_table(Path(results)) if results is not None else run_table(runs, names)
        lower = measured.endswith("loss") if asked["lower_is_better"] is None else asked["lower_is_better"]
        return ablation(
            table,
            measured,
            names,
            primary=primary,
            baseline=named_levels(asked["baseline"], "baseline"),
            lower_is_better=lower,
            margin=asked["margin"],
            detect=asked["detect"],
        ), ""
    except UserError as error:
        if any(value is not None for value in (results, metric, factors, *asked.values())):
            raise
        return None, f"Nothing to compare: {error}."


def _maps(runs: Sequence["Run"], count: int, images: int, *, trust: bool) -> tuple[dict[str, "Maps"], list[str]]:
    """Attention maps by name of the run, and a line for each run of which none could be made."""
    from sinkablate.report.held_maps import held_maps

    made: dict[str, Maps] = {}
    notes: list[str] = []
    for run in runs if count else ():
        if run.kind == "diagnosis":
            held = held_maps(run)
            made |= {} if held is None else {run.name: held}
        elif run.heads is not None and (run.path / "checkpoints").is_dir():
            from sinkablate.diagnose.maps import example_maps  # torch, for those who want maps of runs

            try:
                made[run.name] = example_maps(run.path, run.heads, count, images, trust=trust)
            except UserError as error:
                notes.append(f"No attention maps of {run.name}: {error}")
    return made, notes


def _write(
    target: Path,
    runs: Sequence["Run"],
    made: "Ablation | None",
    said: str,
    maps: dict[str, "Maps"],
    *,
    title: str,
    rule: str,
    metric: str | None,
    notes: Sequence[str],
) -> str:
    """Everything beside its place, then all of it there."""
    from sinkablate.figures.sinks import save
    from sinkablate.files.writing import naming, temporary_sibling, write_json
    from sinkablate.report.ablation import task_metrics
    from sinkablate.report.page import render_page
    from sinkablate.report.tables import write_tables
    from sinkablate.run.provenance import provenance

    known = task_metrics(runs)
    task = metric if metric in known else next(iter(known), None)
    with naming(target), temporary_sibling(target) as partial:
        (partial / "figures").mkdir(parents=True)
        drawn, missing = _draw(runs, made, maps, rule, task)
        if made is None:
            missing |= {"ablation": said, "effects": said}
        for panel, figure in drawn.items():
            save(figure, partial / "figures" / FIGURES.get(panel, panel))
        write_tables(partial / "tables", _sheets(runs, task, rule), made)
        page = render_page(runs, maps, made, title=title, rule=rule, metric=task or "", missing=missing, notes=notes)
        (partial / PAGE).write_text(page, encoding="utf-8")
        write_json(
            partial / MARKER,
            {
                "runs": {run.name: str(run.path) for run in runs},
                "missing": missing,
                "notes": list(notes),
                "rule": rule,
                **provenance(),
            },
        )
        _replace(target, partial)
    for line in (*notes, *(f"panel {panel}: {text}" for panel, text in missing.items())):
        print(line, file=sys.stderr)
    return (
        f"{len(runs)} runs, {len(drawn)} of 12 panels, page of {(target / PAGE).stat().st_size / 1e6:.1f} MB: "
        f"{target / PAGE}"
    )


def _replace(target: Path, partial: Path) -> None:
    """Put a finished report in its place; what else lies there, and in its folders, stays."""
    from sinkablate.files.writing import remove_files

    target.mkdir(parents=True, exist_ok=True)
    (target / MARKER).unlink(missing_ok=True)
    names = {FIGURES.get(panel, panel) for panel in (*LACKS, "ablation", "effects")}
    for folder, old in (("figures", names), ("tables", ("runs", "labels_by_type", "ablation"))):
        for name in old:
            remove_files(target / folder, f"{name}.*")
        (target / folder).mkdir(exist_ok=True)
        for path in (partial / folder).iterdir():
            path.replace(target / folder / path.name)
    for name in (PAGE, MARKER):
        (partial / name).replace(target / name)


def _draw(
    runs: Sequence["Run"], made: "Ablation | None", maps: dict[str, "Maps"], rule: str, metric: str | None
) -> tuple[dict[str, "Drawn"], dict[str, str]]:
    """Figures by panel, and what the others lack."""
    from sinkablate.report import across_runs, map_panel, panels

    found = {
        "handoff": panels.handoff(runs, rule),
        "frequency": panels.frequency(runs, rule),
        "atlas": panels.atlas(runs, rule),
        "norms": panels.token_norms(runs),
        "formation": panels.formation(runs, rule),
        "scatter": across_runs.scatter(runs, rule, metric) if metric else None,
        "labels": across_runs.labels_by_type(runs, rule),
        "stability": across_runs.stability(runs),
        "sensitivity": panels.sensitivity(runs, rule),
        "maps": map_panel.attention([(run, maps[run.name]) for run in runs if run.name in maps]),
    }
    missing = {panel: LACKS[panel] for panel, figure in found.items() if figure is None}
    drawn = {panel: figure for panel, figure in found.items() if figure is not None}
    if made is not None:
        drawn |= {"ablation": across_runs.cells(made), "effects": across_runs.effects(made)}
    return drawn, missing


def _sheets(runs: Sequence["Run"], metric: str | None, rule: str) -> dict:  # type: ignore[type-arg]
    from sinkablate.report.tables import runs_sheet, types_sheet

    return {"runs": runs_sheet(runs, metric, rule), "labels_by_type": types_sheet(runs, rule)}
