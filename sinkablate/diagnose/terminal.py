"""The short table that `diagnose` ends with."""

from typing import Any

from rich.console import Console
from rich.table import Table

from sinkablate.config import ThresholdConfig
from sinkablate.data.image_files import format_counts
from sinkablate.diagnostics.rules import DEFAULT_RULE, VERDICTS, Rule, all_rules
from sinkablate.vit.drift import drift_sentence

FEW_IMAGES = 10
"""With fewer images than this, a warning is printed below the table."""


def print_summary(
    summary: dict[str, Any], thresholds: ThresholdConfig, out: str, first_rule: str = DEFAULT_RULE
) -> None:
    """Print the finding, the sinks per image by rule and label, label stability, and the directory of the results.

    Args:
        summary: Content of `summary.json`.
        thresholds: The thresholds of the rules.
        out: The directory that holds the results.
        first_rule: The rule that is shown first.
    """
    console, unit = Console(highlight=False), unit_of(summary)
    known = [rule for rule in all_rules(thresholds, gated=True) if rule.name in summary["counts"]]
    counted = sorted(known, key=lambda rule: rule.name != first_rule)
    console.print(summary["headline"], soft_wrap=True)
    if summary.get("weights") == "random":
        console.print("The weights are random; sinks form while a model trains.")
    if drift := summary.get("drift"):
        console.print(drift_sentence(drift), soft_wrap=True)
    if any(counts["events"] for part in ("counts", "first_block") for counts in summary[part].values()):
        console.print(
            _table(summary, [rule for rule in counted if "diagnose" in rule.shown or rule.name == first_rule])
        )
    for rule in counted:
        if "figures" in rule.shown or rule.name == first_rule:
            console.print(_explanation(rule, summary), soft_wrap=True)
    if norms := token_norms_line(summary.get("token_maps") or {}):
        console.print(norms, soft_wrap=True)
    reasons = summary.get("skipped_by_reason") or {}
    skipped = sum(reasons.values()) or len(summary["skipped"])
    console.print(
        f"rebuilt blocks differ from the model's own by at most {summary['rebuild_error']:.1e}; "
        f"{summary['images_per_second']:.1f} {unit}s/s, peak memory {summary['peak_memory_gib']:.1f} GiB, "
        f"{skipped} {unit}{'' if skipped == 1 else 's'} skipped{f' ({format_counts(reasons)})' if reasons else ''}"
    )
    if (count := summary["image_count"]) < FEW_IMAGES:
        console.print(
            f"only {count} {unit}{'' if count == 1 else 's'}: frequencies, medians and payload constancy are imprecise"
        )
    console.print(f"results: {out}", soft_wrap=True)


def token_norms_line(maps: dict[str, Any]) -> str:
    """Say in one line which patches have outlying norms, from the summary of the token maps; empty without maps."""
    if not maps or "skipped" in maps:
        return ""
    most = maps["most"]
    if most is None:
        fits = ", ".join(f"{fit} {count}" for fit, count in maps["fits"].items())
        return f"token norms: no outlier among the patches (what the mixtures say, number of stages: {fits})"
    place = f"{'before' if most['stage'] == 'input' else 'after'} block {most['block']}"
    shares = ", ".join(
        f"{most[name]:.0%} {text} (chance {most[f'chance_{name}']:.0%})"
        for name, text in (("border", "at the border"), ("low_texture", "where texture is low"))
    )
    sinks = most["sink_outliers"]
    chance = most["chance_sink_outliers"]
    read = "" if sinks is None else f"; {sinks:.0%} of the dominant columns there are outliers (chance {chance:.1%})"
    return f"token norms: {most['outliers']:.1%} of the patches {place} exceed {most['cutoff']:.3g}: {shares}{read}"


def unit_of(summary: dict[str, Any]) -> str:
    """Return what a model was measured on, image or text, from the summary of its diagnosis."""
    return "text" if "texts" in summary else "image"


def _table(summary: dict[str, Any], shown: list[Rule]) -> Table:
    """Sinks per image by rule and label; block 0 is counted separately, unless it is the only block."""
    labels = [label.name.lower() for label in VERDICTS]
    alone = summary["blocks"] == [0]
    where = "block 0" if alone else "blocks ≥ 1"
    table = Table(
        title=f"{summary['model']}: sinks per {unit_of(summary)}, {where}, mean over {summary['image_count']} "
        f"{unit_of(summary)}s",
        title_justify="left",
    )
    columns = ["sinks", *(name.replace("nop", "NOP") for name in labels), *([] if alone else ["block 0"])]
    table.add_column("rule", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for rule in shown:
        counts = summary["first_block" if alone else "counts"][rule.name]
        first = summary["first_block"].get(rule.name) if not alone else None
        numbers = [counts[name] for name in ("events", *labels)] + ([first["events"]] if first else [])
        table.add_row(rule.name, *map(short, numbers))
    return table


def _explanation(rule: Rule, summary: dict[str, Any]) -> str:
    """When a rule reports a sink, in words and as a formula, the tokens that are sinks, and the labels' stability."""
    counts = summary["first_block" if summary["blocks"] == [0] else "counts"][rule.name]
    by_type, constant = _by_token_type(counts), counts.get("broadcast_payload_constancy")
    kept = summary["label_survival"].get(rule.name, {}).get("all")
    stable = "" if kept is None else f"; {kept:.0%} of the labels stay the same at every neighboring threshold"
    payload = "" if constant is None else f"\n  {_payload_line(constant, summary)}"
    by_type_line = f"\n  sinks by token type: {by_type}{stable}" if by_type else ""
    return f"{rule.name}: a head sinks where {rule.title} ({str(rule).partition(': ')[2]}){by_type_line}{payload}"


def _payload_line(constant: float, summary: dict[str, Any]) -> str:
    """Payload constancy next to what independent payloads have; what 1 means is said only where chance is far below."""
    count = summary["image_count"]
    meaning = "" if count < FEW_IMAGES else "; 1: a constant vector, without content"
    return (
        f"payload constancy of its broadcast heads: {constant:.3f} (independent payloads of {count} "
        f"{unit_of(summary)}s have {1 / count:.3f} by chance{meaning})"
    )


def _by_token_type(counts: dict[str, Any]) -> str:
    """Sinks per image by token type, the most frequent first."""
    totals: dict[str, float] = {}
    for by_type in counts["by_token_type"].values():
        for token_type, value in by_type.items():
            totals[token_type] = totals.get(token_type, 0.0) + value
    most_first = sorted(totals.items(), key=lambda item: -item[1])
    return ", ".join(f"{token_type} {short(value)}" for token_type, value in most_first if value)


def short(value: float) -> str:
    """Two decimals; exactly zero is `0`, and less than half a hundredth `< 0.01`."""
    if value == 0:
        return "0"
    return f"{value:.2f}" if value >= 0.005 else "< 0.01"
