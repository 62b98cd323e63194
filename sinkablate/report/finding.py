"""The opening sentences of a report, which claim no more than the comparison supports."""

from collections.abc import Sequence
from statistics import median

from sinkablate.compare.agreement import direction_word
from sinkablate.compare.comparison import Comparison, Difference
from sinkablate.compare.numbers import decimals, interval, number
from sinkablate.diagnostics.counting import counted_rows
from sinkablate.files.suggestions import first_few
from sinkablate.report.ablation import EVENTS, Ablation, short_name
from sinkablate.report.events import LABELS, events_per_image, has_events, sinks, sinks_by_type
from sinkablate.report.run import Run, kind_names, models

NAMED = 4
"""Number of cells of a kind that are named; the others are counted."""
NAMES = {"nop": "NOP", "broadcast": "broadcast", "other": "other"}


def finding(runs: Sequence[Run], rule: str, metric: Ablation | None, events: Ablation | None) -> list[str]:
    """The sentences at the top of the page.

    Args:
        runs: All runs of the report.
        rule: The rule that is shown first.
        metric: The comparison of the task metric, if there is one.
        events: The comparison of the sink events per image, if there is one.
    """
    compared = [comparison_sentence(ablation.comparison) for ablation in (metric, events) if ablation is not None]
    return [sinks_sentence(models(runs), rule), *length_sentence(runs), *compared]


def length_sentence(runs: Sequence[Run]) -> list[str]:
    """The warning that finished runs were trained for different numbers of steps or epochs; empty if they were not."""
    finished = [run for run in runs if run.finished]
    for unit, counts in (("steps", [run.steps for run in finished]), ("epochs", [run.epochs for run in finished])):
        known = sorted({count for count in counts if count is not None})
        if len(known) > 1:
            return [
                f"The runs were trained for different numbers of {unit}, {known[0]} to {known[-1]}: a difference "
                "between two of them can come from the length of their training instead of their variant."
            ]
    return []


def sinks_sentence(runs: Sequence[Run], rule: str) -> str:
    """Whether heads sink, how often, with which labels, and on which tokens."""
    measured = [run for run in runs if rule in run.rules]
    if not measured:
        return "No sinks were measured in these runs."
    if not has_events(measured, rule):
        others = sorted({name for run in measured for name in run.rules if has_events([run], name)})
        if others:
            return f"No head sinks by the rule {rule}; events are counted by {', '.join(others)}."
        where = f"none of the {len(measured)} models has" if len(measured) > 1 else f"{measured[0].name} does not have"
        return f"No head sinks: {where} a single sink event{_blocks(measured)} by any rule."
    return _one_model(measured[0], rule) if len(measured) == 1 else _many_models(measured, rule)


def _one_model(run: Run, rule: str) -> str:
    assert run.heads is not None
    table = counted_rows(run.heads)
    heads = int((table[f"{rule}_frequency"] > 0).sum())
    return (
        f"In {run.name}, {heads} of {len(table)} heads{_blocks([run])} sink on at least one image by the rule {rule}: "
        f"{events_per_image(run, rule):.3g} sink events per image ({_labels([run], rule)}; {_tokens([run], rule)})."
    )


def _many_models(runs: Sequence[Run], rule: str) -> str:
    events = [events_per_image(run, rule) for run in runs]
    count = sum(value > 0 for value in events)
    return (
        f"{count} of {len(runs)} models have attention sinks by the rule {rule}: {min(events):.3g} to "
        f"{max(events):.3g} sink events per image{_blocks(runs)}, median {median(events):.3g} ({_labels(runs, rule)}; "
        f"{_tokens(runs, rule)})."
    )


def _blocks(runs: Sequence[Run]) -> str:
    """The note that block 0 is left out; empty for models of one block."""
    deep = [run for run in runs if run.heads is not None and run.heads["block"].max()]
    return " in blocks ≥ 1" if deep else ""


def _labels(runs: Sequence[Run], rule: str) -> str:
    """Shares of the labels among all events, largest first."""
    counts = {label: sum(sinks(run, rule)[label] for run in runs) for label in LABELS}
    total = sum(counts.values())
    shares = sorted(((count / total, NAMES[label]) for label, count in counts.items() if count), reverse=True)
    return "labels: " + ", ".join(f"{_percent(share)} {name}" for share, name in shares)


def _tokens(runs: Sequence[Run], rule: str) -> str:
    """Shares of the token types among all events, largest first."""
    counts: dict[str, float] = {}
    for run in runs:
        for by_type in sinks_by_type(run, rule).values():
            for kind, value in by_type.items():
                counts[kind] = counts.get(kind, 0) + value
    total, names = sum(counts.values()), kind_names(runs)
    shares = sorted(((value / total, names[kind]) for kind, value in counts.items() if value), reverse=True)
    return "sink tokens: " + ", ".join(f"{_percent(share)} {name}" for share, name in shares)


def _percent(share: float) -> str:
    """A share in percent; only exact shares of 0 and 1 become 0 % and 100 %."""
    return "100 %" if share >= 1 - 1e-9 else f"{min(max(round(100 * share), 1), 99)} %"


def comparison_sentence(of: Comparison) -> str:
    """The established differences from the baseline, or the statement that none is established."""
    base = short_name(of.baseline, of.factors)
    established = [difference for difference in of.differences if difference.higher is not None]
    name = of.metric[0].upper() + of.metric[1:] if of.metric == EVENTS else of.metric
    if not established:
        few = min((cell.n for cell in of.cells), default=0) < 2
        reason = "; nothing can be inferred from one run per cell" if few else ""
        return f"{name}: no difference from {base} is established{reason}."
    groups: dict[str, list[Difference]] = {}
    for difference in established:
        groups.setdefault(direction_word(difference), []).append(difference)
    parts = [f"{direction}: {_listed(of, group)}" for direction, group in groups.items()]
    others = [short_name(difference.cell, of.factors) for difference in of.differences if difference.higher is None]
    rest = f"; no difference established: {first_few(others, NAMED)}" if others else ""
    return f"{name} compared with {base} (p < .05 after Holm, 95 % intervals): {'; '.join(parts)}{rest}."


def _listed(of: Comparison, differences: Sequence[Difference]) -> str:
    """Cells with their differences and intervals."""
    places = decimals(of)
    return first_few(
        [
            f"{short_name(difference.cell, of.factors)} {number(difference.estimate.value, places, sign=True)} "
            f"{interval(difference.estimate, places, sign=True)}"
            for difference in differences
        ],
        NAMED,
    )
