"""Apply Holm's correction over a family of tests fixed beforehand, and derive the verdicts."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np

from sinkablate.compare.agreement import under_the_other_test
from sinkablate.compare.comparison import Combination, Comparison, Difference
from sinkablate.compare.factorial import claim, intersection_union, kind
from sinkablate.compare.sentences import sentences
from sinkablate.compare.statistics import ALPHA, Floats, Inference, equivalence, fisher, gather, holm

SIGNS = {False: 1.0, True: -1.0, None: nan}
"""Sign of a gain in a metric, by whether lower is better; NaN for a metric without a better direction."""


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with Holm-corrected p-values, verdicts and sentences; the families span all comparisons.

    The differences from the baseline form one family, and so do the interactions, the complementary claims, and the
    shares of diverged runs; the equivalence tests (TOST) of differences and of interactions are families of their own.
    The correction starts from the estimates, so a comparison can be corrected again within a larger family. The other
    test is corrected over the same family, and the sentences say where its findings differ.
    """
    others = _corrected([under_the_other_test(comparison) for comparison in comparisons])
    return [
        replace(comparison, sentences=sentences(comparison, other))
        for comparison, other in zip(_corrected(comparisons), others, strict=True)
    ]


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return comparisons with p-values and verdicts, without sentences."""
    differences = _differences([(comparison, row) for comparison in comparisons for row in comparison.differences])
    combinations = _combinations([(comparison, row) for comparison in comparisons for row in comparison.combinations])
    family = _family(comparisons, differences, combinations)
    next_difference, next_combination = iter(differences), iter(combinations)
    return [
        replace(
            comparison,
            family=family,
            differences=tuple(next(next_difference) for _ in comparison.differences),
            combinations=tuple(next(next_combination) for _ in comparison.combinations),
        )
        for comparison in comparisons
    ]


def _differences(pairs: Sequence[tuple[Comparison, Difference]]) -> list[Difference]:
    """Return the differences with their p-values and verdicts, given each with the comparison it belongs to."""
    p_holm = holm([difference.estimate.p for _, difference in pairs])
    p_equivalent = holm([_p_equivalent(comparison, difference.estimate) for comparison, difference in pairs])
    p_diverged = _p_diverged(pairs)
    higher = [
        difference.estimate.value > 0 if p < ALPHA else None for (_, difference), p in zip(pairs, p_holm, strict=True)
    ]
    return [
        replace(
            difference,
            p_holm=float(p),
            p_equivalent=float(q),
            p_diverged=float(r),
            higher=up,
            better=None if up is None or comparison.lower_is_better is None else up is not comparison.lower_is_better,
        )
        for (comparison, difference), p, q, r, up in zip(pairs, p_holm, p_equivalent, p_diverged, higher, strict=True)
    ]


def _p_equivalent(comparison: Comparison, estimate: Inference) -> float:
    """Return the p-value of TOST within the margin; NaN without a margin."""
    return nan if comparison.margin is None else float(equivalence(estimate, comparison.margin))


def _p_diverged(pairs: Sequence[tuple[Comparison, Difference]]) -> list[float]:
    """Return Fisher's p-value, after Holm, for the share of diverged runs of every cell.

    NaN in a comparison without diverged runs. Runs without a known outcome are not counted. Several metrics of the
    same runs share one test.
    """
    cells = {id(comparison): {cell.name: cell for cell in comparison.cells} for comparison, _ in pairs}
    any_diverged = {key: any(cell.diverged for cell in named.values()) for key, named in cells.items()}
    tables = []
    for comparison, difference in pairs:
        cell, base = (cells[id(comparison)][name] for name in (difference.cell, difference.baseline))
        counts = (cell.name, base.name, cell.diverged, cell.ended, base.diverged, base.ended)
        tables.append(counts if any_diverged[id(comparison)] else None)
    distinct = list(dict.fromkeys(filter(None, tables)))
    p_values = holm([fisher(*counts) if counts[1] and counts[3] else nan for _, _, *counts in distinct])
    known = dict(zip(distinct, map(float, p_values), strict=True))
    return [nan if table is None else known[table] for table in tables]


def _combinations(pairs: Sequence[tuple[Comparison, Combination]]) -> list[Combination]:
    """Return the combinations with their p-values and both verdicts, given each with the comparison it belongs to."""
    if not pairs:
        return []
    signs = np.array([SIGNS[comparison.lower_is_better] for comparison, _ in pairs])
    over_first = gather([combination.over_first for _, combination in pairs])
    over_second = gather([combination.over_second for _, combination in pairs])
    p_complementary = holm(intersection_union(over_first, over_second, signs))
    p_holm = holm([combination.interaction.p for _, combination in pairs])
    p_additive = holm([_p_equivalent(comparison, combination.interaction) for comparison, combination in pairs])
    values: Floats = np.array([combination.interaction.value for _, combination in pairs])
    kinds, claims = kind(values, p_holm, p_additive, signs), claim(p_complementary)
    return [
        replace(
            combination,
            p_complementary=float(p_complementary[index]),
            complementary=claims[index].item(),
            p_holm=float(p_holm[index]),
            p_additive=float(p_additive[index]),
            kind=kinds[index].item(),
        )
        for index, (_, combination) in enumerate(pairs)
    ]


def _family(
    comparisons: Sequence[Comparison], differences: Sequence[Difference], combinations: Sequence[Combination]
) -> str:
    """Return what the correction covers, in words."""
    metrics = ", ".join(comparison.metric for comparison in comparisons)
    tests = sorted({"paired by seed" if comparison.primary == "paired" else "Welch's" for comparison in comparisons})
    words = (
        f"Holm over {_count([row.p_holm for row in differences], 'difference', 'differences')} from the baseline "
        f"({' and '.join(tests)}) of {metrics}"
    )
    others = []
    if combinations:
        others = [_count([row.p_holm for row in combinations], "interaction", "interactions")]
    for p_values, singular, plural in (
        ([row.p_complementary for row in combinations], "complementary claim", "complementary claims"),
        ([row.p_equivalent for row in differences], "test of equivalence", "tests of equivalence"),
        ([row.p_additive for row in combinations], "test of additivity", "tests of additivity"),
        ([row.p_diverged for row in differences], "share of diverged runs", "shares of diverged runs"),
    ):
        if not np.isnan(p_values).all():
            others.append(_count(p_values, singular, plural))
    return words + (f"; separately for each kind, over {', '.join(others)}" if others else "")


def _count(p_values: Sequence[float], singular: str, plural: str) -> str:
    """Return how many tests a family has, such as `3 differences`, or `3 of 5 differences` if some have no p-value."""
    tests, total = int(np.isfinite(p_values).sum()), len(p_values)
    name = singular if total == 1 else plural
    return f"{tests} {name}" if tests == total else f"{tests} of {total} {name} (the others have no p-value)"
