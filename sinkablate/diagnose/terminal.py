"""The short table that `diagnose` ends with."""

from typing import Any

from rich.console import Console
from rich.table import Table

from sinkablate.data.files import said
from sinkablate.diagnostics.labels import VERDICTS

SHOWN = ("causal", "lejepa", "def1_0.3", "adaptive", "effective_causal", "effective_adaptive")
FEW = 10
"""Below so many images the table carries a warning."""
EXPLAINED = ("causal", "adaptive")
"""The default rules: their thresholds and token types are spelled out."""


def print_summary(summary: dict[str, Any], out: str) -> None:
    """Events per image by rule and label, block 0 apart; what the labels are worth; where it all is."""
    console = Console(highlight=False)
    labels = [label.name.lower() for label in VERDICTS]
    table = Table(
        title=f"{summary['model']}: sinks per image over {summary['image_count']} images, blocks ≥ 1",
        title_justify="left",
    )
    for column in ("rule", "events", *labels, "block 0"):
        table.add_column(column, justify="left" if column == "rule" else "right", no_wrap=True)
    for rule in SHOWN:
        if rule in summary["counts"]:
            counts, first = summary["counts"][rule], summary["first_block"].get(rule)
            table.add_row(
                rule,
                *(f"{counts[name]:.2f}" for name in ("events", *labels)),
                f"{first['events']:.2f}" if first else "",
            )
    console.print(table)
    spelled = {text.split(":")[0]: text for text in summary["rules"]}
    for rule in EXPLAINED:
        kept = summary["label_survival"][rule]["all"]
        worth = "" if kept is None else f"; {kept:.0%} of the labels survive every neighboring threshold"
        console.print(f"{spelled[rule]}\n  on {_places(summary['counts'][rule]) or 'no token'}{worth}", soft_wrap=True)
    console.print(
        f"rebuilt blocks differ from the model's by at most {summary['rebuild_error']:.1e}; "
        f"{summary['images_per_second']:.1f} images/s, peak memory {summary['peak_memory_gib']:.1f} GiB, "
        f"{len(summary['skipped'])} images skipped"
        + (f" ({said(summary['skipped_by_reason'])})" if summary.get("skipped_by_reason") else "")
    )
    if summary["image_count"] < FEW:
        console.print(
            f"{summary['image_count']} images say little: frequencies, medians and payload constancy are over images"
        )
    console.print(f"results: {out}", soft_wrap=True)


def _places(counts: dict[str, Any]) -> str:
    """Token types of the events, the commonest first."""
    totals: dict[str, float] = {}
    for kinds in counts["by_token_type"].values():
        for kind, value in kinds.items():
            totals[kind] = totals.get(kind, 0.0) + value
    return ", ".join(f"{kind} {value:.2f}" for kind, value in sorted(totals.items(), key=lambda x: -x[1]) if value)
