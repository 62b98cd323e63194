"""Holm's correction over a family fixed beforehand, and the verdicts that follow from it."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan

import numpy as np

from sinkablate.compare.comparison import Combination, Comparison, Difference
from sinkablate.compare.factorial import claim, intersection_union, kind
from sinkablate.compare.sentences import sentences
from sinkablate.compare.statistics import ALPHA, Floats, Inference, equivalence, fisher, gather, holm


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with p-values after Holm over all of them together, verdicts, and sentences.

    Differences to the baseline are a family, so are interactions, complementary claims, and shares of diverged runs;
    TOST has the families of its differences and interactions. Starts from the estimates, so that a comparison may be
    corrected again within a larger family.
    """
    differences = [(each, found) for each in comparisons for found in each.differences]
    combinations = [(each, found) for each in comparisons for found in each.combinations]
    told, read = _differences(differences), _combinations(combinations)
    family, tests, claims = _family(comparisons, told, read), iter(told), iter(read)
    done = [
        replace(
            each,
            family=family,
            differences=tuple(next(tests) for _ in each.differences),
            combinations=tuple(next(claims) for _ in each.combinations),
        )
        for each in comparisons
    ]
    return [replace(each, sentences=sentences(each)) for each in done]


def _differences(found: Sequence[tuple[Comparison, Difference]]) -> list[Difference]:
    """Differences with their p-values and whether they are better."""
    p_holm = holm([each.estimate.p for _, each in found])
    same = holm([_same(of, each.estimate) for of, each in found])
    diverged = _diverged(found)
    return [
        replace(
            each,
            p_holm=float(p),
            p_equivalent=float(q),
            p_diverged=float(r),
            better=(each.estimate.value > 0) != of.lower_is_better if p < ALPHA else None,
        )
        for (of, each), p, q, r in zip(found, p_holm, same, diverged, strict=True)
    ]


def _same(of: Comparison, estimate: Inference) -> float:
    """p of TOST within the margin; NaN without one."""
    return nan if of.margin is None else float(equivalence(estimate, of.margin))


def _diverged(found: Sequence[tuple[Comparison, Difference]]) -> list[float]:
    """Fisher's p, after Holm, of every cell's share of diverged runs; NaN in a comparison without any.

    Runs that did not end well or badly say nothing of it. Metrics of the same runs share one test.
    """
    cells = {id(of): {cell.name: cell for cell in of.cells} for of, _ in found}
    some = {key: any(cell.diverged for cell in named.values()) for key, named in cells.items()}
    tables = []
    for of, each in found:
        cell, base = (cells[id(of)][name] for name in (each.cell, each.baseline))
        tables.append(
            (cell.name, base.name, cell.diverged, cell.ended, base.diverged, base.ended) if some[id(of)] else None
        )
    distinct = list(dict.fromkeys(filter(None, tables)))
    p_values = holm([fisher(*counts) if counts[1] and counts[3] else nan for _, _, *counts in distinct])
    known = dict(zip(distinct, map(float, p_values), strict=True))
    return [nan if table is None else known[table] for table in tables]


def _combinations(found: Sequence[tuple[Comparison, Combination]]) -> list[Combination]:
    """Combinations with their p-values and both verdicts."""
    if not found:
        return []
    signs = np.array([-1 if of.lower_is_better else 1 for of, _ in found])
    over = [
        gather([part for _, part in parts])
        for parts in ([(of, each.over_first) for of, each in found], [(of, each.over_second) for of, each in found])
    ]
    complementary = holm(intersection_union(over[0], over[1], signs))
    p_holm = holm([each.interaction.p for _, each in found])
    additive = holm([_same(of, each.interaction) for of, each in found])
    values: Floats = np.array([each.interaction.value for _, each in found])
    kinds, claims = kind(values, p_holm, additive, signs), claim(complementary)
    return [
        replace(
            each,
            p_complementary=float(complementary[place]),
            complementary=claims[place].item(),
            p_holm=float(p_holm[place]),
            p_additive=float(additive[place]),
            kind=kinds[place].item(),
        )
        for place, (_, each) in enumerate(found)
    ]


def _family(
    comparisons: Sequence[Comparison], differences: Sequence[Difference], combinations: Sequence[Combination]
) -> str:
    """What was corrected over, in words."""
    metrics = ", ".join(each.metric for each in comparisons)
    tests = sorted({"paired by seed" if each.primary == "paired" else "Welch's" for each in comparisons})
    words = (
        f"Holm over {_many([each.p_holm for each in differences], 'difference', 'differences')} to the baseline "
        f"({' and '.join(tests)}) of {metrics}"
    )
    apart = []
    if combinations:
        apart = [
            _many([each.p_holm for each in combinations], "interaction", "interactions"),
            _many([each.p_complementary for each in combinations], "complementary claim", "complementary claims"),
        ]
    for p_values, one, many in (
        ([each.p_equivalent for each in differences], "test of sameness", "tests of sameness"),
        ([each.p_additive for each in combinations], "test of additivity", "tests of additivity"),
        ([each.p_diverged for each in differences], "share of diverged runs", "shares of diverged runs"),
    ):
        if not np.isnan(p_values).all():
            apart.append(_many(p_values, one, many))
    return words + (f"; apart from these, each kind by itself, over {', '.join(apart)}" if apart else "")


def _many(p_values: Sequence[float], one: str, many: str) -> str:
    """How many tests a family has, and of how many, where some have no inference."""
    tests, total = int(np.isfinite(p_values).sum()), len(p_values)
    name = one if total == 1 else many
    return f"{tests} {name}" if tests == total else f"{tests} of {total} {name} (the others have no inference)"
