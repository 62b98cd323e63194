"""Which cell the others are compared with."""

from collections.abc import Mapping

from sinkablate.compare.runs import Levels, Runs
from sinkablate.compare.table import level
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list

PLAIN = ("none", "0", "false", "off", "baseline")
"""Levels that say that a mechanism is not there."""


def choose_baseline(runs: Runs, given: Mapping[str, str]) -> tuple[Levels, list[str]]:
    """The baseline's level of every factor, and a note on those that were not named.

    Raises:
        UserError: A factor or level that is not there, a factor whose baseline is not plain, or a cell without runs.
    """
    for name in given:
        if name not in runs.factors:
            raise UserError(f"baseline: {name} is not one of the factors{did_you_mean_or_list(name, runs.factors)}")
    cell, assumed = [], []
    for factor, levels in zip(runs.factors, runs.levels, strict=True):
        plain = [name for name in levels if name.lower() in PLAIN]
        if factor in given:
            found = level(given[factor])
            if found not in levels:
                raise UserError(f"baseline: {factor} has no level {given[factor]}{did_you_mean_or_list(found, levels)}")
        elif len(levels) == 1:
            found = levels[0]
        elif len(plain) == 1:
            found = plain[0]
            assumed.append(f"{factor}={found}")
        else:
            raise UserError(
                f"baseline: {factor} has the levels {', '.join(levels[:20])}, and it is not plain which of "
                f"them is the baseline; say --baseline {factor}=LEVEL"
            )
        cell.append(found)
    chosen = tuple(cell)
    if chosen not in runs.cells:
        raise UserError(f"baseline: there are no runs with {runs.name(chosen)}")
    if not (runs.cells[chosen].seeds or runs.cells[chosen].diverged):
        raise UserError(f"baseline: no run with {runs.name(chosen)} has a finite metric or is marked diverged")
    return chosen, [f"baseline {', '.join(assumed)} was assumed, not named"] if assumed else []
