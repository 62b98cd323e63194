"""What a comparison says in plain sentences, and no more than its seeds support."""

from collections.abc import Mapping
from math import isfinite, isnan

from sinkablate.compare.comparison import Cell, Combination, Comparison, Difference
from sinkablate.compare.numbers import decimals, interval, number, p_is
from sinkablate.compare.power import MOST_SEEDS, in_single_run_sd
from sinkablate.compare.statistics import ALPHA

FEW = 10
"""Fewer seeds a cell are few: what 80 % power needs is then above one standard deviation of a run."""


def sentences(comparison: Comparison) -> tuple[str, ...]:
    """Differences, combinations, and what the seeds could have found, in this order."""
    places = decimals(comparison)
    cells = {cell.name: cell for cell in comparison.cells}
    return (
        *(_difference(comparison, found, places, cells) for found in comparison.differences),
        *(line for found in comparison.combinations for line in _combination(comparison, found, places)),
        *_omnibus(comparison),
        *_power(comparison, places),
    )


def _difference(of: Comparison, found: Difference, places: int, cells: Mapping[str, Cell]) -> str:
    """A cell against the baseline."""
    shown = number(found.estimate.value, places, sign=True)
    if isnan(found.p_holm):
        verdict = "no inference (too few runs, or no spread)"
    else:
        shown += f" {interval(found.estimate, places, sign=True)}"
        p = f"({p_is(found.p_holm)} after Holm)"
        verdict = (
            f"no difference is established {p}, which does not make them equal"
            if found.better is None
            else f"{'better' if found.better else 'worse'} {p}"
        )
    if found.p_equivalent < ALPHA:
        same = f"the same within ±{of.margin:g} (TOST, {p_is(found.p_equivalent)} after Holm)"
        verdict = same if found.better is None else f"{verdict}, and {same}"
    elif isfinite(found.p_equivalent):
        verdict += f"; not shown to be the same within ±{of.margin:g}"
    if found.p_diverged < ALPHA:
        verdict += f"; its share of diverged runs differs (Fisher, {p_is(found.p_diverged)} after Holm)"
    among = _survivors(cells[found.cell], cells[found.baseline])
    return f"{found.cell}: {shown} against {found.baseline}{among}: {verdict}."


def _survivors(cell: Cell, base: Cell) -> str:
    """That a difference is one of the runs that did not diverge, where some did."""
    return (
        f", among the runs that did not diverge ({cell.ended - cell.diverged} of {cell.ended} and "
        f"{base.ended - base.diverged} of {base.ended})"
        if cell.diverged or base.diverged
        else ""
    )


def _combination(of: Comparison, found: Combination, places: int) -> list[str]:
    """The two sentences about two mechanisms together."""
    return [
        f"{found.first} and {found.second}: {line}."
        for line in (_complementary(of, found, places), _interaction(of, found, places))
    ]


def _complementary(of: Comparison, found: Combination, places: int) -> str:
    """Is the combination better than each part alone?"""
    if found.complementary == "not estimable":
        return "whether they are complementary cannot be said (runs are missing, too few, or without spread)"
    over = " and ".join(
        f"{number(part.value, places, sign=True)} {interval(part, places, sign=True)} over {name} alone"
        for part, name in ((found.over_first, found.first), (found.over_second, found.second))
    )
    return (
        f"complementary is {found.complementary}: together {over} ({p_is(found.p_complementary)} after Holm; it "
        f"takes both intervals {'below' if of.lower_is_better else 'above'} zero, and p below .05)"
    )


def _interaction(of: Comparison, found: Combination, places: int) -> str:
    """Is it more or less than the sum of its parts?"""
    value = number(found.interaction.value, places, sign=True)
    if found.kind == "not estimable":
        return f"interaction {value}, without an interval (it needs two seeds in each of four cells, and spread)"
    sign = -1 if of.lower_is_better else 1
    alone = [sign * (over.value - found.interaction.value) for over in (found.over_first, found.over_second)]
    harm = max(alone) < 0  # what one brings beside the other, less the interaction, is what it brings alone
    verdict = {
        "synergistic": "synergistic is supported: together they bring more than the sum of their effects"
        if not harm
        else "synergistic is supported: each harms, and together they harm less than the sum of their effects",
        "sub-additive": "sub-additive is supported: together they bring less than the sum of their effects"
        if not harm
        else "sub-additive is supported: each harms, and together they harm more than the sum of their effects",
        "additive": f"additive within ±{of.margin or 0:g} is supported (TOST, {p_is(found.p_additive)} after Holm)",
        "undetermined": "not distinguishable from additive, which does not make it additive",
    }[found.kind]
    if found.kind in ("synergistic", "sub-additive") and found.p_additive < ALPHA:
        verdict += f", though by less than {of.margin:g}"
    return (
        f"interaction {value} {interval(found.interaction, places, sign=True)} ({p_is(found.p_holm)} after Holm): "
        f"{verdict}"
    )


def _omnibus(of: Comparison) -> list[str]:
    """The F-test over several interaction contrasts."""
    return [
        f"All interactions of {test.factors[0]} and {test.factors[1]} together: F({test.df[0]:g}, {test.df[1]:g}) "
        f"= {test.f:.2f}, {p_is(test.p)} ({test.test})."
        for test in of.omnibus
    ]


def _power(of: Comparison, places: int) -> list[str]:
    """What these seeds could find, and how many would find the effect that was named."""
    lines = [_few(of)]
    for name, found in (("a difference", of.differences), ("an interaction", of.combinations)):
        behind = [_behind(of, each) for each in found if each.seeds_needed is not None]
        least = [each.detectable for each in found if isfinite(each.detectable)]
        needed = [each.seeds_needed for each in found if each.seeds_needed is not None]
        if least:
            span = _span([number(size, places) for size in (min(least), max(least))])
            line = f"At the spread seen here, and before Holm, 80 % power finds {name} of {span}"
            if needed:
                seeds = _span([f"{count:,}" for count in (min(needed), max(needed))])
                line += (
                    f"; one of {of.detect:g} needs {seeds} seeds a cell, judged by the spread of "
                    f"{_span([str(count) for count in (min(behind), max(behind))])} {_what(of)}"
                )
            lines.append(line + ".")
        unknown = len(found) - len(needed)
        if of.detect is not None and unknown:
            lines.append(
                f"How many seeds {name} of {of.detect:g} needs cannot be said for {unknown} of {len(found)}: "
                f"no spread, fewer than three {_what(of)}, images that vary too, or more than {MOST_SEEDS:,}."
            )
    if of.detect is None and len(lines) > 1:
        lines.append("Name an effect with --detect to hear how many seeds it needs.")
    return lines


def _what(of: Comparison) -> str:
    return "pairs" if of.primary == "paired" else "seeds"


def _behind(of: Comparison, found: Difference | Combination) -> int:
    """Pairs that a contrast is of, or the seeds of its smallest cell."""
    if isinstance(found, Combination):
        return found.seeds
    cells = {cell.name: cell.n for cell in of.cells}
    return found.pairs if of.primary == "paired" else min(cells[found.cell], cells[found.baseline])


def _span(ends: list[str]) -> str:
    """From the smallest to the largest."""
    return " to ".join(dict.fromkeys(ends))


def _few(of: Comparison) -> str:
    """What so few seeds can find at all, in standard deviations of a run."""
    fewest, what = min((_behind(of, found) for found in of.differences), default=0), _what(of)
    if fewest < 2:
        return f"The fewest {what} behind a difference are {fewest}: nothing can be inferred there."
    sizes = in_single_run_sd(fewest, of.primary)
    effects = ", ".join(f"{size:.1f} for {name}" for name, size in sizes.items())
    few = ", which are few" if fewest < FEW else ""
    return (
        f"The fewest {what} behind a difference are {fewest}{few}: 80 % power needs a true effect, in standard "
        f"deviations of a run, of {effects}."
    )
