"""Estimates of a design: cell means, differences from the baseline, and combinations of two factors.

p-values after Holm's correction and verdicts are NaN or undecided here; `correction.corrected` fills them in.
"""

from collections.abc import Sequence
from math import isnan, nan

from sinkablate.compare.comparison import Cell, Combination, Difference, Primary
from sinkablate.compare.contrasts import DIFFERENCE, Contrast, contrast, infer
from sinkablate.compare.design import Design
from sinkablate.compare.factorial import INTERACTION
from sinkablate.compare.power import detectable
from sinkablate.compare.runs import CellRuns
from sinkablate.compare.statistics import correlation, hedges, sign_flip


def cell_summaries(design: Design) -> tuple[Cell, ...]:
    """Return the mean and spread of every cell, the baseline first."""
    ranks = [
        {level: rank for rank, level in enumerate((base, *design.other_levels(factor)))}
        for factor, base in enumerate(design.baseline)
    ]
    order = sorted(
        design.runs.cells, key=lambda levels: [rank[level] for rank, level in zip(ranks, levels, strict=True)]
    )
    cells = [design.runs.cells[levels] for levels in order]
    means = infer([contrast([cell], [1.0], "welch") for cell in cells], "welch").primary
    return tuple(
        Cell(
            name=design.runs.name(levels),
            levels=levels,
            runs=cell.runs,
            diverged=cell.diverged,
            missing=cell.missing,
            n=len(cell.seeds),
            seeds=cell.seeds,
            mean=means[index],
            sd=cell.sd,
            nested=cell.nested,
        )
        for index, (levels, cell) in enumerate(zip(order, cells, strict=True))
    )


def differences(design: Design, summaries: Sequence[Cell]) -> tuple[Difference, ...]:
    """Return every other cell minus the baseline, in the order of the cells."""
    base = design.runs.cells[design.baseline]
    all_levels = [summary.levels for summary in summaries if summary.levels != design.baseline]
    cells = [design.runs.cells[levels] for levels in all_levels]
    estimates = infer([contrast([cell, base], DIFFERENCE, design.primary) for cell in cells], design.primary)
    smallest, needed = detectable(estimates.primary), design.seeds_needed(estimates)
    base_seeds = set(base.seeds)
    results = []
    for index, (levels, cell, weighted) in enumerate(zip(all_levels, cells, estimates.contrasts, strict=True)):
        common = [seed for seed in cell.seeds if seed in base_seeds]
        no_flip = cell.drawn is not None or isnan(estimates.paired.p[index])
        results.append(
            Difference(
                cell=design.runs.name(levels),
                baseline=design.runs.name(design.baseline),
                estimate=estimates.primary[index],
                paired=estimates.paired[index],
                welch=estimates.welch[index],
                pairs=weighted.pairs,
                correlation=correlation(cell.at(common).values, base.at(common).values),
                hedges_g=hedges(cell.values, base.values),
                p_holm=nan,
                p_sign_flip=nan if no_flip else sign_flip(weighted.by_seed),
                p_equivalent=nan,
                p_diverged=nan,
                detectable=float(smallest[index]),
                seeds_needed=needed[index],
                higher=None,
                better=None,
            )
        )
    return tuple(results)


def combinations(design: Design) -> tuple[Combination, ...]:
    """Return every two levels of every two factors together, the other factors at the baseline's levels."""
    keys = [
        (first, a, second, b)
        for first, second in design.factor_pairs()
        for a in design.other_levels(first)
        for b in design.other_levels(second)
    ]
    corners = [design.corners(*key) for key in keys]
    primary = design.primary
    over_first, over_second = (
        infer([contrast([cells[0], cells[alone]], DIFFERENCE, primary) for cells in corners], primary)
        for alone in (1, 2)
    )
    estimates = infer([contrast(cells, INTERACTION, primary) for cells in corners], primary)
    smallest, needed = detectable(estimates.primary), design.seeds_needed(estimates)
    factors = design.runs.factors
    return tuple(
        Combination(
            first=f"{factors[first]}={a}",
            second=f"{factors[second]}={b}",
            cell=design.runs.name(design.levels({first: a, second: b})),
            over_first=over_first.primary[index],
            over_second=over_second.primary[index],
            over_first_paired=over_first.paired[index],
            over_first_welch=over_first.welch[index],
            over_second_paired=over_second.paired[index],
            over_second_welch=over_second.welch[index],
            p_complementary=nan,
            complementary="not estimable",
            interaction=estimates.primary[index],
            interaction_paired=estimates.paired[index],
            interaction_welch=estimates.welch[index],
            seeds=_seeds(corners[index], weighted, primary),
            p_holm=nan,
            p_additive=nan,
            kind="not estimable",
            detectable=float(smallest[index]),
            seeds_needed=needed[index],
        )
        for index, ((first, a, second, b), weighted) in enumerate(zip(keys, estimates.contrasts, strict=True))
    )


def _seeds(corners: Sequence[CellRuns | None], weighted: Contrast, primary: Primary) -> int:
    """Return the number of seeds behind an interaction: those in all four cells, or those of the smallest cell."""
    return weighted.pairs if primary == "paired" else min(len(cell.seeds) if cell else 0 for cell in corners)
