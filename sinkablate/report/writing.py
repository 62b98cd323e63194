"""Write a report: figures, tables and the page, first into a temporary folder, then into place."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sinkablate.compare.comparison import Comparison
from sinkablate.compare.sheets import Sheet
from sinkablate.errors import UserError
from sinkablate.figures.maps import Maps
from sinkablate.figures.sinks import Drawn, save
from sinkablate.files.ownership import is_json_with, refuse_foreign
from sinkablate.files.writing import naming, remove_files, temporary_sibling, write_json
from sinkablate.report import across_runs, map_panel, panels, token_map_panel
from sinkablate.report.ablation import Ablation, task_metrics
from sinkablate.report.edits import edits
from sinkablate.report.finding import finding
from sinkablate.report.page import render_page
from sinkablate.report.paper import FIGURES as PAPER_FIGURES
from sinkablate.report.paper import write_paper_figures
from sinkablate.report.quality import quality, quality_sheet
from sinkablate.report.run import Run, models
from sinkablate.report.tables import runs_sheet, types_sheet, write_tables
from sinkablate.run.directory import CONFIG, DIAGNOSIS, EVALUATION, INTERVENTION, lock_directory, unlock_directory
from sinkablate.run.provenance import provenance

PAPER = "paper"
"""Folder of the figures of the paper."""
MARKER, PAGE = "report.json", "index.html"
"""Files of a report; the first is written last, so a directory that contains it is a report."""
LACKS = {
    "handoff": "No run holds a table of blocks.",
    "frequency": "No run holds a table of heads.",
    "atlas": "No run holds medians over the events of this rule; those of causal and adaptive are measured.",
    "norms": "No run holds a table of blocks.",
    "formation": "No run was measured during training.",
    "scatter": "No run has both a task metric and labels.",
    "quality": "No run has both an evaluation and labels; python -m sinkablate evaluate --run … measures its features.",
    "labels": "No run holds labels.",
    "stability": "No run logged its stability.",
    "sensitivity": "No input is a diagnosis; python -m sinkablate diagnose --run … varies the thresholds.",
    "edits": "No input is an intervention; python -m sinkablate intervene --run … tests whether labels hold.",
    "token_maps": "No token maps: they need a diagnosis of a model that reads images (python -m sinkablate diagnose).",
    "maps": "No attention maps: they need a run with a checkpoint and its data, or a diagnosis (and --maps above 0).",
}
"""The note in place of a panel that has nothing to show."""
FIGURES = {"norms": "token_norms", "labels": "labels_by_type"}
"""Panels whose figure has another name."""
WITHOUT_PANEL = ("entropy",)
"""Figures that have no panel on the page."""
TABLES = ("runs", "labels_by_type", "ablation", "quality")
WRITTEN = (CONFIG, "checkpoints", DIAGNOSIS, INTERVENTION, EVALUATION, PAGE, "figures", "tables", PAPER)
"""Files that a report writes, and files that show that the directory belongs to another command."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a report shows."""

    runs: Sequence[Run]
    rule: str
    metric: str | None
    """The task metric that the user chose."""
    title: str
    comparison: Ablation | None
    no_comparison: str
    """Why there is no comparison."""
    sinks: Ablation | None
    """The comparison of the sink events per image."""
    quality: Sequence[Comparison]
    """Comparisons by sink events, task metric and the numbers of the evaluations; empty if no run was evaluated."""
    maps: dict[str, Maps]
    """Attention maps by run name."""
    paper: bool
    """Also write the figures of the paper."""
    notes: Sequence[str]
    """What a reader must know about the runs."""


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse to write over anything but a report; other files in the directory stay.

    Raises:
        UserError: The directory holds files that a report would replace, output of another command, or a report that
            is not to be replaced.
    """
    if str(target) == ".":
        raise UserError("out: name a directory for the report other than the current one")
    if not is_json_with(target / MARKER, ("runs", "versions")):
        refuse_foreign(target, WRITTEN, key="out", what=f"a report ({MARKER})")
    elif not overwrite:
        raise UserError(f"out={target}: holds a report; choose another --out, or add --overwrite true")


def write_report(target: Path, report: Report, *, overwrite: bool) -> str:
    """Write a report, while no other process can write to its directory, and print its notes on stderr.

    Returns:
        One line that says what was written.

    Raises:
        UserError: The directory cannot be written, another process is writing to it, or has written a report since.
    """
    lock = lock_directory(target, "out")
    try:
        check_target(target, overwrite)
        with naming(target), temporary_sibling(target) as partial:
            drawn, missing = _write(partial, report)
            papers, absent = write_paper_figures(partial / PAPER, report.runs, report.rule) if report.paper else (0, [])
            _replace(target, partial)
    finally:
        unlock_directory(lock)
        with suppress(OSError):  # an error leaves no empty directory
            target.rmdir()
    for line in (*report.notes, *(f"panel {panel}: {text}" for panel, text in missing.items()), *absent):
        print(line, file=sys.stderr)
    size = (target / PAGE).stat().st_size / 1e6
    of_paper = f"{papers} figures of the paper in {target / PAPER}, " if report.paper else ""
    of_page = f"{drawn} of {drawn + len(missing)} panels, page of {size:.1f} MB: {target / PAGE}"
    runs = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    return f"{runs}, {of_paper}{of_page}"


def _write(folder: Path, report: Report) -> tuple[int, dict[str, str]]:
    """Write all files; return the number of figures drawn, and what the other panels lack."""
    known = task_metrics(report.runs)
    task = report.metric if report.metric in known else next(iter(known), None)
    (folder / "figures").mkdir(parents=True)
    figures = _draw(report, task)
    missing = {panel: LACKS[panel] for panel, drawn in figures.items() if drawn is None and panel in LACKS}
    if report.comparison is None:
        missing |= {"ablation": report.no_comparison, "effects": report.no_comparison}
    present = {panel: drawn for panel, drawn in figures.items() if drawn is not None}
    for panel, drawn in present.items():
        save(drawn, folder / "figures" / FIGURES.get(panel, panel))
    tables: dict[str, Sheet] = {
        "runs": runs_sheet(report.runs, task, report.rule),
        "labels_by_type": types_sheet(report.runs, report.rule),
    }
    of_quality = quality_sheet(report.quality)
    if of_quality is not None:
        tables["quality"] = of_quality
    write_tables(folder / "tables", tables, report.comparison)
    page = render_page(
        report.runs,
        report.maps,
        report.comparison,
        report.quality,
        title=report.title,
        finding=finding(report.runs, report.rule, report.comparison, report.sinks),
        rule=report.rule,
        metric=task or "",
        missing=missing,
        notes=report.notes,
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    content = {
        "runs": {run.name: str(run.path) for run in report.runs},
        "missing": missing,
        "notes": list(report.notes),
        "rule": report.rule,
        **provenance(),
    }
    write_json(folder / MARKER, content)
    return len(present), missing


def _replace(target: Path, partial: Path) -> None:
    """Move a finished report into place; other files in the directory and in its folders stay."""
    target.mkdir(parents=True, exist_ok=True)
    (target / MARKER).unlink(missing_ok=True)
    names = {FIGURES.get(panel, panel) for panel in (*LACKS, *WITHOUT_PANEL, "ablation", "effects")}
    for folder, old in (("figures", names), ("tables", TABLES), (PAPER, {figure.file for figure in PAPER_FIGURES})):
        for name in old:
            remove_files(target / folder, f"{name}.*")
        if not (partial / folder).exists():
            continue
        (target / folder).mkdir(exist_ok=True)
        for path in (partial / folder).iterdir():
            path.replace(target / folder / path.name)
    for name in (PAGE, MARKER):
        (partial / name).replace(target / name)


def _draw(report: Report, metric: str | None) -> dict[str, Drawn | None]:
    """Figures by panel; None for a panel without data."""
    runs, rule, comparison = report.runs, report.rule, report.comparison
    single = models(runs)
    return {
        "handoff": panels.handoff(runs, rule),
        "frequency": panels.frequency(runs, rule),
        "entropy": panels.entropy(runs),
        "atlas": panels.atlas(runs, rule),
        "norms": panels.token_norms(single),
        "formation": panels.formation(runs, rule),
        "scatter": across_runs.scatter(single, rule, metric) if metric else None,
        "ablation": None if comparison is None else across_runs.cells(comparison),
        "effects": None if comparison is None else across_runs.effects(comparison),
        "quality": quality(single, rule),
        "labels": across_runs.labels_by_type(single, rule),
        "stability": across_runs.stability(runs),
        "sensitivity": panels.sensitivity(runs, rule),
        "edits": edits(runs),
        "token_maps": token_map_panel.token_norms(single),
        "maps": map_panel.attention([(run, report.maps[run.name]) for run in runs if run.name in report.maps]),
    }
