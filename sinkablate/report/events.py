"""Sink events of a run per image, by label, token type and training step."""

import re
from collections.abc import Sequence

import numpy as np
import polars as pl

from sinkablate.diagnostics.counting import counted_rows
from sinkablate.diagnostics.rules import DEFAULT_RULE, scalar_prefix
from sinkablate.figures.sinks import LABEL_COLORS, TYPE_COLORS
from sinkablate.report.run import Run

KINDS = tuple(TYPE_COLORS)
"""Token types."""
LABELS = tuple(LABEL_COLORS)
"""Labels of an event."""
VERDICTS = (*LABELS, "undefined")
"""Verdicts of a rule on a head and an image, other than no event."""
POINTS = 100
"""Length of the longest series of training steps."""


def sinks(run: Run, rule: str) -> dict[str, float]:
    """Events per image of each verdict, summed over heads and blocks."""
    assert run.heads is not None
    table = counted_rows(run.heads)
    return {verdict: float((table[f"{rule}_{verdict}"] / table["images"]).sum()) for verdict in VERDICTS}


def events_per_image(run: Run, rule: str) -> float:
    """Events per image of all labels together."""
    counts = sinks(run, rule)
    return sum(counts[label] for label in LABELS)


def has_events(runs: Sequence[Run], rule: str) -> bool:
    """Whether a rule found an event in any run."""
    return any(rule in run.rules and events_per_image(run, rule) > 0 for run in runs)


def counted_by_type(run: Run, rule: str) -> dict[str, dict[str, float]] | None:
    """Label -> token type -> events per image as counted event by event; None if the run's files do not hold them."""
    one_block = run.heads is not None and not run.heads["block"].max()
    counts = run.summary.get("first_block" if one_block else "counts") or {}
    return counts[rule]["by_token_type"] if rule in counts else None


def sinks_by_type(run: Run, rule: str) -> dict[str, dict[str, float]]:
    """Label -> token type -> events per image.

    Exact where events were counted by type. The files of older and of unfinished runs do not hold these counts; there,
    all events of a head are counted for its most common token type.
    """
    stored = counted_by_type(run, rule)
    if stored is not None:
        return {label: {kind: float(stored[label].get(kind, 0)) for kind in KINDS} for label in LABELS}
    assert run.heads is not None
    table = counted_rows(run.heads)
    return {
        label: {
            kind: float((rows[f"{rule}_{label}"] / rows["images"]).sum())
            for kind in KINDS
            for rows in [table.filter(pl.col("token_type") == kind)]
        }
        for label in LABELS
    }


def types_caveat(runs: Sequence[Run], rule: str | None = None) -> str:
    """How events were assigned to token types in runs where they were not counted by type; empty if there are none.

    Args:
        runs: The runs that are shown.
        rule: The rule of the labels; None for any rule.
    """
    rules = [(run, [name for name in run.rules if rule in (None, name)]) for run in runs]
    exact = [all(counted_by_type(run, name) is not None for name in names) for run, names in rules if names]
    which = f"in {exact.count(False)} of {len(exact)} runs, " if any(exact) else ""
    return "" if all(exact) else f"{which}all events of a head are counted for its most common token type"


def logged_rules(run: Run) -> list[str]:
    """Names of the rules whose labels a run logged during training."""
    names = [] if run.metrics is None else run.metrics.columns
    matches = [re.fullmatch(r"sink/(?:(.+)/)?nop", name.replace("/first_block", "")) for name in names]
    return list(dict.fromkeys(match[1] or DEFAULT_RULE for match in matches if match))


def steps_of_labels(run: Run, rule: str) -> pl.DataFrame | None:
    """Events per image of each label over training steps: columns step, nop, broadcast, other."""
    one_block = run.heads is not None and not run.heads["block"].max()
    prefix = scalar_prefix(rule) + ("/first_block" if one_block else "")
    names = {f"{prefix}/{label}": label for label in LABELS}
    if run.metrics is None or not set(names) <= set(run.metrics.columns):
        return None
    table = run.metrics.select("step", *names).rename(names).drop_nulls()
    indices = np.unique(np.linspace(0, len(table) - 1, min(POINTS, len(table))).round().astype(int))
    return table[indices.tolist()] if len(table) else None
