"""Tables of a report, as Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.compare.formats import render
from sinkablate.compare.markup import NEEDS, escaped_markdown, latex_table, markdown_table
from sinkablate.compare.sheets import Sheet, sheets
from sinkablate.figures.sinks import LABEL_COLORS
from sinkablate.report.ablation import Ablation
from sinkablate.report.contents import KINDS, VERDICTS, scalar_metrics, sinks, sinks_by_type, types_caveat
from sinkablate.report.runs import Run

NOTHING = "NA"


def runs_sheet(runs: Sequence[Run], metric: str | None, rule: str) -> Sheet:
    """One row a run: what it achieved, its sinks per image by label, and the stability of its training."""
    rows = []
    for run in runs:
        numbers, state = scalar_metrics(run), "diverged" if run.diverged else "" if run.finished else "unfinished"
        labels = sinks(run, rule) if rule in run.rules else {}
        events = [sum(labels[name] for name in LABEL_COLORS), *(labels[name] for name in VERDICTS)] if labels else []
        rows.append(
            (
                run.name,
                run.variant,
                run.seed or NOTHING,
                state or "finished",
                shown(numbers.get(metric or "")),
                *([shown(value) for value in events] or [NOTHING] * 5),
                *(shown(numbers.get(f"stability/{name}")) for name in STABILITY),
            )
        )
    return Sheet(
        f"Runs; sink events per image by rule {rule}, blocks ≥ 1",
        (
            "run",
            "variant",
            "seed",
            "state",
            metric or "metric",
            "events",
            *VERDICTS,
            *(name.replace("_", " ") for name in STABILITY),
        ),
        tuple(rows),
        4,
    )


STABILITY = ("loss_spikes", "grad_spikes", "nonfinite_steps")


def types_sheet(runs: Sequence[Run], rule: str) -> Sheet:
    """One row a run and label: events per image by the type of token that is the sink."""
    rows = [
        (run.name, run.variant, label, *(shown(share[kind]) for kind in KINDS))
        for run in runs
        if rule in run.rules
        for label, share in sinks_by_type(run, rule).items()
    ]
    caveat = types_caveat(runs, rule)
    return Sheet(
        f"Sink events per image by label and token type, rule {rule}" + (f"; {caveat}" if caveat else ""),
        ("run", "variant", "label", *KINDS),
        tuple(rows),
        3,
    )


def shown(value: float | None) -> str:
    """Four significant digits."""
    return NOTHING if value is None else f"{value:.4g}"


def write_tables(folder: Path, made: dict[str, Sheet], ablation: Ablation | None) -> None:
    """Write NAME.md and NAME.tex for each sheet, and for the comparison."""
    folder.mkdir()
    for name, sheet in made.items():
        (folder / f"{name}.md").write_text(
            f"**{escaped_markdown(sheet.title)}**\n\n{markdown_table(sheet)}\n", encoding="utf-8"
        )
        (folder / f"{name}.tex").write_text(f"{NEEDS}\n\n{latex_table(sheet, sheet.title + '.')}\n", encoding="utf-8")
    if ablation is not None:
        (folder / "ablation.md").write_text(render([ablation.comparison], "markdown") + "\n", encoding="utf-8")
        (folder / "ablation.tex").write_text(render([ablation.comparison], "latex") + "\n", encoding="utf-8")


def page_sheets(ablation: Ablation | None) -> list[Sheet]:
    """What the page shows of a comparison as tables."""
    return [] if ablation is None else sheets(ablation.comparison)
