"""State the findings of a comparison in plain sentences that claim no more than the seeds support."""

from collections.abc import Mapping, Sequence
from math import isfinite, isnan

from sinkablate.compare.agreement import direction_word, disagreements, equivalence_verdict
from sinkablate.compare.comparison import Cell, Combination, Comparison, Difference
from sinkablate.compare.numbers import decimals, interval, number, p_is
from sinkablate.compare.power import MOST_SEEDS, in_single_run_sd
from sinkablate.compare.statistics import ALPHA

FEW = 10
"""Fewer seeds per cell are called few: 80 % power then needs an effect above one standard deviation of a run."""


def sentences(comparison: Comparison, other: Comparison) -> tuple[str, ...]:
    """Return sentences about differences, combinations, the other test, and the effects that the seeds could detect.

    Args:
        comparison: The comparison.
        other: The same comparison with the other test as the primary one.
    """
    places = decimals(comparison)
    cells = {cell.name: cell for cell in comparison.cells}
    return (
        *(_difference(comparison, difference, places, cells) for difference in comparison.differences),
        *(line for combination in comparison.combinations for line in _combination(comparison, combination, places)),
        *_omnibus(comparison),
        *disagreements(comparison, other),
        *_power(comparison, places),
    )


def _difference(comparison: Comparison, difference: Difference, places: int, cells: Mapping[str, Cell]) -> str:
    """Describe a cell against the baseline."""
    shown = number(difference.estimate.value, places, sign=True)
    if isnan(difference.p_holm):
        verdict = "not tested (too few runs or no spread)"
    else:
        shown += f" {interval(difference.estimate, places, sign=True)}"
        p = f"({p_is(difference.p_holm)} after Holm)"
        verdict = (
            f"no difference is established {p}, which does not show that they are equal"
            if difference.higher is None
            else f"{direction_word(difference)} {p}"
        )
    if difference.p_equivalent < ALPHA:
        same = equivalence_verdict(difference, comparison.margin)
        verdict = same if difference.higher is None else f"{verdict}, and {same}"
    elif isfinite(difference.p_equivalent):
        verdict += f"; {equivalence_verdict(difference, comparison.margin)}"
    if difference.p_diverged < ALPHA:
        verdict += f"; its share of diverged runs differs (Fisher, {p_is(difference.p_diverged)} after Holm)"
    among = _survivors(cells[difference.cell], cells[difference.baseline])
    return f"{difference.cell}: {shown} against {difference.baseline}{among}: {verdict}."


def _survivors(cell: Cell, base: Cell) -> str:
    """Say that a difference is between the runs that did not diverge, if some did."""
    return (
        f", among the runs that did not diverge ({cell.ended - cell.diverged} of {cell.ended} and "
        f"{base.ended - base.diverged} of {base.ended})"
        if cell.diverged or base.diverged
        else ""
    )


def _combination(comparison: Comparison, combination: Combination, places: int) -> list[str]:
    """Return the sentences about two mechanisms together: one for a metric without a better direction, else two."""
    lines = [_interaction(comparison, combination, places)]
    if comparison.lower_is_better is not None:
        lines.insert(0, _complementary(comparison, combination, places))
    return [f"{combination.first} and {combination.second}: {line}." for line in lines]


def _complementary(comparison: Comparison, combination: Combination, places: int) -> str:
    """Say whether the combination is better than each part alone."""
    if combination.complementary == "not estimable":
        return "whether they are complementary is unknown (runs are missing, too few, or without spread)"
    over = " and ".join(
        f"{number(part.value, places, sign=True)} {interval(part, places, sign=True)} over {name} alone"
        for part, name in ((combination.over_first, combination.first), (combination.over_second, combination.second))
    )
    return (
        f"complementary is {combination.complementary}: together {over} "
        f"({p_is(combination.p_complementary)} after Holm; supported means both intervals "
        f"{'below' if comparison.lower_is_better else 'above'} zero and p below .05)"
    )


def _interaction(comparison: Comparison, combination: Combination, places: int) -> str:
    """Say whether the combination brings more or less than the sum of its parts."""
    value = number(combination.interaction.value, places, sign=True)
    if combination.kind == "not estimable":
        return f"interaction {value}, without an interval (that needs spread and two seeds in each of four cells)"
    sign = -1 if comparison.lower_is_better else 1
    alone = [
        sign * (over.value - combination.interaction.value)
        for over in (combination.over_first, combination.over_second)
    ]
    harm = max(alone) < 0  # effect of one on top of the other, minus the interaction: its effect alone
    verdict = {
        "synergistic": "synergistic is supported: together they bring more than the sum of their effects"
        if not harm
        else "synergistic is supported: each harms, and together they harm less than the sum of their effects",
        "sub-additive": "sub-additive is supported: together they bring less than the sum of their effects"
        if not harm
        else "sub-additive is supported: each harms, and together they harm more than the sum of their effects",
        "above additive": "together they change it by more, upward, than the sum of their effects",
        "below additive": "together they change it by more, downward, than the sum of their effects",
        "additive": f"additive within ±{comparison.margin or 0:g} is supported "
        f"(TOST, {p_is(combination.p_additive)} after Holm)",
        "undetermined": "not distinguishable from additive, which does not show that it is additive",
    }[combination.kind]
    if combination.kind not in ("additive", "undetermined") and combination.p_additive < ALPHA:
        verdict += f", although by less than {comparison.margin:g}"
    return (
        f"interaction {value} {interval(combination.interaction, places, sign=True)} "
        f"({p_is(combination.p_holm)} after Holm): {verdict}"
    )


def _omnibus(comparison: Comparison) -> list[str]:
    """Report the F-tests over several interaction contrasts."""
    return [
        f"All interactions of {test.factors[0]} and {test.factors[1]} together: F({test.df[0]:g}, {test.df[1]:g}) "
        f"= {test.f:.2f}, {p_is(test.p)} ({test.test})."
        for test in comparison.omnibus
    ]


def _power(comparison: Comparison, places: int) -> list[str]:
    """Say which effects these seeds can detect, and how many seeds the effect of `detect` needs."""
    lines = [_few(comparison)]
    rows: Sequence[Difference | Combination]
    for name, rows in (("a difference", comparison.differences), ("an interaction", comparison.combinations)):
        used = [_sample_size(comparison, row) for row in rows if row.seeds_needed is not None]
        detectable = [row.detectable for row in rows if isfinite(row.detectable)]
        needed = [row.seeds_needed for row in rows if row.seeds_needed is not None]
        if detectable:
            span = _span([number(size, places) for size in (min(detectable), max(detectable))])
            line = f"At the observed spread and before Holm, 80 % power detects {name} of {span}"
            if needed:
                seeds = _span([f"{count:,}" for count in (min(needed), max(needed))])
                line += (
                    f"; one of {comparison.detect:g} needs {seeds} seeds per cell, estimated from the spread of "
                    f"{_span([str(count) for count in (min(used), max(used))])} {_sample(comparison)}"
                )
            lines.append(line + ".")
        unknown = len(rows) - len(needed)
        if comparison.detect is not None and unknown:
            lines.append(
                f"The number of seeds for {name} of {comparison.detect:g} is unknown for {unknown} of {len(rows)}: "
                f"no spread, fewer than three {_sample(comparison)}, images that vary as well, "
                f"or more than {MOST_SEEDS:,} seeds."
            )
    if comparison.detect is None and len(lines) > 1:
        lines.append("Add detect=EFFECT to show the number of seeds needed to detect that effect.")
    return lines


def _sample(comparison: Comparison) -> str:
    """Return what the sample size of the primary test counts."""
    return "pairs" if comparison.primary == "paired" else "seeds"


def _sample_size(comparison: Comparison, row: Difference | Combination) -> int:
    """Return the number of pairs behind a contrast, or of seeds in its smallest cell."""
    if isinstance(row, Combination):
        return row.seeds
    cells = {cell.name: cell.n for cell in comparison.cells}
    return row.pairs if comparison.primary == "paired" else min(cells[row.cell], cells[row.baseline])


def _span(ends: list[str]) -> str:
    """Return the smallest and the largest as a range, or the one value if both are equal."""
    return " to ".join(dict.fromkeys(ends))


def _few(comparison: Comparison) -> str:
    """Say which effects the smallest number of seeds can detect, in standard deviations of a run."""
    fewest, sample = (
        min((_sample_size(comparison, row) for row in comparison.differences), default=0),
        _sample(comparison),
    )
    if fewest < 2:
        return f"The smallest number of {sample} behind a difference is {fewest}: nothing can be inferred from it."
    sizes = in_single_run_sd(fewest, comparison.primary)
    effects = ", ".join(f"{size:.1f} for {name}" for name, size in sizes.items())
    few = ", which is few" if fewest < FEW else ""
    return (
        f"The smallest number of {sample} behind a difference is {fewest}{few}: 80 % power needs a true effect, in "
        f"standard deviations of a run, of {effects}."
    )
