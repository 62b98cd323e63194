"""What a comparison says in plain sentences, and no more than its seeds support."""

from math import isfinite, isnan

from sinkablate.compare.comparison import Combination, Comparison, Difference
from sinkablate.compare.numbers import decimals, interval, number, p_is
from sinkablate.compare.power import in_single_run_sd
from sinkablate.compare.statistics import ALPHA

FEW = 10
"""Fewer seeds a cell are few: what 80 % power needs is then above one standard deviation of a run."""


def sentences(comparison: Comparison) -> tuple[str, ...]:
    """Differences, combinations, and what the seeds could have found, in this order."""
    places = decimals(comparison)
    return (*(_difference(comparison, found, places) for found in comparison.differences),
            *(line for found in comparison.combinations for line in _combination(comparison, found, places)),
            *_omnibus(comparison), *_power(comparison, places))


def _difference(of: Comparison, found: Difference, places: int) -> str:
    """A cell against the baseline."""
    shown = number(found.estimate.value, places, sign=True)
    if isnan(found.p_holm):
        verdict = "no inference (too few runs, or no spread)"
    else:
        shown += f" {interval(found.estimate, places, sign=True)}"
        p = f"({p_is(found.p_holm)} after Holm)"
        verdict = f"no difference is established {p}, which does not make them equal" if found.better is None else \
            f"{'better' if found.better else 'worse'} {p}"
    if found.p_equivalent < ALPHA:
        same = f"the same within ±{of.margin:g} (TOST, {p_is(found.p_equivalent)} after Holm)"
        verdict = same if found.better is None else f"{verdict}, and {same}"
    elif isfinite(found.p_equivalent):
        verdict += f"; not shown to be the same within ±{of.margin:g}"
    if found.p_diverged < ALPHA:
        verdict += f"; its share of diverged runs differs (Fisher, {p_is(found.p_diverged)} after Holm)"
    return f"{found.cell}: {shown} against {found.baseline}: {verdict}."


def _combination(of: Comparison, found: Combination, places: int) -> list[str]:
    """The two sentences about two mechanisms together."""
    return [f"{found.first} and {found.second}: {line}." for line in
            (_complementary(of, found, places), _interaction(of, found, places))]


def _complementary(of: Comparison, found: Combination, places: int) -> str:
    """Is the combination better than each part alone?"""
    if found.complementary == "not estimable":
        return "whether they are complementary cannot be said (runs are missing, too few, or without spread)"
    over = " and ".join(f"{number(part.value, places, sign=True)} {interval(part, places, sign=True)} over {name} alone"
                        for part, name in ((found.over_first, found.first), (found.over_second, found.second)))
    return f"complementary is {found.complementary}: together {over} ({p_is(found.p_complementary)} after Holm; both " \
           f"intervals have to be {'below' if of.lower_is_better else 'above'} zero)"


def _interaction(of: Comparison, found: Combination, places: int) -> str:
    """Is it more or less than the sum of its parts?"""
    value = number(found.interaction.value, places, sign=True)
    if found.kind == "not estimable":
        return f"interaction {value}, without an interval (it needs two seeds in each of four cells, and spread)"
    verdict = {
        "synergistic": "synergistic is supported: together they bring more than the sum of their effects",
        "sub-additive": "sub-additive is supported: together they bring less than the sum of their effects",
        "additive": f"additive within ±{of.margin or 0:g} is supported (TOST, {p_is(found.p_additive)} after Holm)",
        "undetermined": "not distinguishable from additive, which does not make it additive",
    }[found.kind]
    if found.kind in ("synergistic", "sub-additive") and found.p_additive < ALPHA:
        verdict += f", though by less than {of.margin:g}"
    return f"interaction {value} {interval(found.interaction, places, sign=True)} ({p_is(found.p_holm)} after Holm): " \
           f"{verdict}"


def _omnibus(of: Comparison) -> list[str]:
    """The F-test over several interaction contrasts."""
    return [f"All interactions of {test.factors[0]} and {test.factors[1]} together: F({test.df[0]:g}, {test.df[1]:g}) "
            f"= {test.f:.2f}, {p_is(test.p)} ({test.test})." for test in of.omnibus]


def _power(of: Comparison, places: int) -> list[str]:
    """What these seeds could find, and how many would find the effect that was named."""
    lines = []
    fewest = min((cell.n for cell in of.cells if cell.n > 1), default=0)
    if fewest:
        sizes = in_single_run_sd(fewest)
        lines.append(f"{fewest} seeds in the smallest cell" + (" are few: " if fewest < FEW else ": ") +
                     f"80 % power needs a true effect of {sizes['paired, no correlation']:.1f} standard deviations "
                     f"of a run (pairs without correlation), {sizes['paired, correlation .5']:.1f} (correlation .5), "
                     f"and {sizes['interaction']:.1f} for an interaction.")
    for name, found in (("difference", of.differences), ("interaction", of.combinations)):
        least = [each.detectable for each in found if isfinite(each.detectable)]
        if not least:
            continue
        line = f"At the spread seen here, 80 % power finds a {name}".replace("a i", "an i") + " of "
        line += number(min(least), places) if len(least) == 1 else \
            f"{number(min(least), places)} to {number(max(least), places)}"
        needed = [each.seeds_needed for each in found if each.seeds_needed is not None]
        if of.detect is not None and needed:
            most = f"{min(needed):,}" if min(needed) == max(needed) else f"{min(needed):,} to {max(needed):,}"
            line += f"; one of {of.detect:g} needs {most} seeds a cell"
        lines.append(line + ".")
    if of.detect is None and lines:
        lines.append("Name an effect with --detect to hear how many seeds it needs.")
    return lines
