"""Tables of a report, as Markdown and LaTeX."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.compare.formats import render
from sinkablate.compare.markup import NEEDS, escaped_markdown, latex_table, markdown_table
from sinkablate.compare.sheets import Sheet, sheets
from sinkablate.report.ablation import Ablation
from sinkablate.report.events import KINDS, VERDICTS, events_per_image, sinks, sinks_by_type, types_caveat
from sinkablate.report.run import Run, kind_names, scalar_metrics

NOTHING = "NA"
STABILITY = ("loss_spikes", "grad_spikes", "nonfinite_steps")


def runs_sheet(runs: Sequence[Run], metric: str | None, rule: str) -> Sheet:
    """One row per run: what it achieved, its sinks per image by label, and the stability of its training."""
    rows = []
    for run in runs:
        numbers = scalar_metrics(run)
        counts = sinks(run, rule) if rule in run.rules else {}
        events = [events_per_image(run, rule), *(counts[name] for name in VERDICTS)] if counts else []
        rows.append(
            (
                run.name,
                run.variant,
                run.seed or NOTHING,
                run.state,
                NOTHING if run.steps is None else str(run.steps),
                shown(numbers.get(metric or "")),
                *([shown(value) for value in events] or [NOTHING] * (1 + len(VERDICTS))),
                *(shown(numbers.get(f"stability/{name}")) for name in STABILITY),
            )
        )
    return Sheet(
        f"Runs, with sink events per image by the rule {rule} in blocks ≥ 1 (models of one block: in block 0)",
        (
            "run",
            "variant",
            "seed",
            "state",
            "steps",
            metric or "metric",
            "events",
            *VERDICTS,
            *(name.replace("_", " ") for name in STABILITY),
        ),
        tuple(rows),
        4,
    )


def types_sheet(runs: Sequence[Run], rule: str) -> Sheet:
    """One row per run and label: events per image by the type of the token that is the sink."""
    counts = [(run, sinks_by_type(run, rule)) for run in runs if rule in run.rules]
    kinds = [
        kind
        for kind in KINDS
        if any(kind in run.token_types or any(shares[kind] for shares in of_run.values()) for run, of_run in counts)
    ]
    rows = [
        (run.name, run.variant, label, *(shown(shares[kind]) for kind in kinds))
        for run, of_run in counts
        for label, shares in of_run.items()
    ]
    caveat = types_caveat(runs, rule)
    return Sheet(
        f"Sink events per image by label and token type, rule {rule}" + (f"; {caveat}" if caveat else ""),
        ("run", "variant", "label", *(kind_names(runs)[kind] for kind in kinds)),
        tuple(rows),
        3,
    )


def shown(value: float | None) -> str:
    """A number with four significant digits."""
    return NOTHING if value is None else f"{value:.4g}"


def write_tables(folder: Path, tables: dict[str, Sheet], ablation: Ablation | None) -> None:
    """Write NAME.md and NAME.tex for each table, and for the comparison."""
    folder.mkdir()
    for name, sheet in tables.items():
        (folder / f"{name}.md").write_text(
            f"**{escaped_markdown(sheet.title)}**\n\n{markdown_table(sheet)}\n", encoding="utf-8"
        )
        (folder / f"{name}.tex").write_text(f"{NEEDS}\n\n{latex_table(sheet, sheet.title + '.')}\n", encoding="utf-8")
    if ablation is not None:
        (folder / "ablation.md").write_text(render([ablation.comparison], "markdown") + "\n", encoding="utf-8")
        (folder / "ablation.tex").write_text(render([ablation.comparison], "latex") + "\n", encoding="utf-8")


def page_sheets(ablation: Ablation | None) -> list[Sheet]:
    """The tables of a comparison, for the page."""
    return [] if ablation is None else sheets(ablation.comparison)
