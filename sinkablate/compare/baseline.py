"""Choose the cell that the others are compared with."""

from collections.abc import Mapping

from sinkablate.compare.runs import Levels, Runs
from sinkablate.compare.table import level
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list

PLAIN = ("none", "0", "false", "off", "baseline")
"""Levels that mean the absence of a mechanism; a factor that has exactly one of them uses it as its baseline.

The variants of a sweep, such as `gate=none+registers=0`, mean it if all of their values do."""


def choose_baseline(runs: Runs, given: Mapping[str, str]) -> tuple[Levels, list[str]]:
    """Return the baseline's level of every factor, and a note on the factors that were not named.

    Raises:
        UserError: A factor or level does not exist, a factor has no obvious baseline, or the baseline has no runs.
    """
    for name in given:
        if name not in runs.factors:
            raise UserError(f"baseline={name}: not one of the factors{did_you_mean_or_list(name, runs.factors)}")
    cell, assumed = [], []
    for factor, levels in zip(runs.factors, runs.levels, strict=True):
        plain = [name for name in levels if _is_plain(name)]
        if factor in given:
            base = level(given[factor])
            if base not in levels:
                raise UserError(f"baseline: {factor} has no level {given[factor]}{did_you_mean_or_list(base, levels)}")
        elif len(levels) == 1:
            base = levels[0]
        elif len(plain) == 1:
            base = plain[0]
            assumed.append(f"{factor}={base}")
        else:
            raise UserError(
                f"baseline: {factor} has the levels {', '.join(levels[:20])}, none of which is an obvious baseline; "
                f"name one with baseline {factor}=LEVEL"
            )
        cell.append(base)
    chosen = tuple(cell)
    if chosen not in runs.cells:
        raise UserError(f"baseline: there are no runs with {runs.name(chosen)}")
    if not (runs.cells[chosen].seeds or runs.cells[chosen].diverged):
        raise UserError(f"baseline: no run with {runs.name(chosen)} has a finite metric or is marked diverged")
    return chosen, [f"the baseline {', '.join(assumed)} was chosen automatically"] if assumed else []


def _is_plain(name: str) -> bool:
    return all(part.rpartition("=")[2].lower() in PLAIN for part in name.split("+"))
