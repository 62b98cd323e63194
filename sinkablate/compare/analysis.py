"""One metric of a table of runs, from the rows to a `Comparison`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite, isnan, nan

import numpy as np
import polars as pl

from sinkablate.compare.baseline import choose_baseline
from sinkablate.compare.comparison import Cell, Combination, Comparison, Difference, Omnibus, Primary
from sinkablate.compare.contrasts import DIFFERENCE, Contrast, Estimates, contrast, infer
from sinkablate.compare.correction import corrected
from sinkablate.compare.factorial import INTERACTION, omnibus_paired, omnibus_unpaired
from sinkablate.compare.power import detectable, seeds_needed
from sinkablate.compare.runs import CellRuns, Levels, Runs, listed, tidy
from sinkablate.compare.statistics import correlation, hedges, sign_flip
from sinkablate.compare.table import in_order, levels
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list

MOST_CONTRASTS = 50
"""With more interaction contrasts no omnibus test is made."""
THREADS = "threads"
"""Column of the number of threads that a run was computed with."""
LEAST_FREEDOM = 2
"""With fewer degrees of freedom a spread does not say how many seeds an effect needs."""


def compare_table(
    frame: pl.DataFrame,
    *,
    metric: str,
    factors: Sequence[str],
    baseline: Mapping[str, str] | None = None,
    pair_by: str | None = "seed",
    primary: Primary = "paired",
    lower_is_better: bool = False,
    margin: float | None = None,
    detect: float | None = None,
    nested: str | None = None,
    image: str | None = None,
    diverged: str | None = None,
) -> Comparison:
    """Compare the cells of a table of runs with a baseline on one metric.

    Args:
        frame: One row a run (or a run and `nested` value, or a run and `image`).
        metric: Column of numbers.
        factors: Columns that make the cells; levels are compared as text, 4.0 and "4" are one level.
        baseline: Level of each factor; one that is not named is the level none, 0, false, off or baseline.
        pair_by: Column whose equal values in two cells are pairs; None: there are no pairs.
        primary: Which test of a difference counts; both are there.
        lower_is_better: Smaller values of the metric are better.
        margin: Two cells are the same if they differ by less; without it nothing is said to be the same.
        detect: An effect, in the metric's units, to say how many seeds would find it.
        nested: Column of seeds within a run (probe seeds of a backbone), averaged per run.
        image: Column of images; intervals are then by a bootstrap over seeds and images.
        diverged: Column that says which runs diverged; `diverged` if there is one.

    Raises:
        UserError: A column or level that is not there, a metric that is not a number anywhere, two rows for one run,
            or nothing to compare.
    """
    _check(primary, margin, detect)
    notes: list[str] = []
    if diverged is None and "diverged" in frame.columns and "diverged" not in (metric, *factors):
        diverged = "diverged"
    if primary == "welch" and pair_by is not None and pair_by not in frame.columns:
        notes.append(f"there is no column {pair_by}: nothing is paired")
        pair_by = None
    if primary == "paired" and pair_by is None:
        raise UserError("primary=paired needs pair_by, the column that pairs runs")
    if primary == "paired" and pair_by is not None and pair_by not in frame.columns:
        raise UserError(
            f"pair_by={pair_by}: no such column{did_you_mean_or_list(pair_by, frame.columns)}; "
            "without pairs, use --primary welch"
        )
    notes += _unequal_threads(frame, (metric, *factors))
    runs = tidy(frame, metric, factors, pair_by, nested, image, diverged)
    base, assumed = choose_baseline(runs, baseline or {})
    asked = Asked(runs, base, primary, detect)
    cells, (omnibus, untested) = _cells(asked), _omnibus(asked)
    draft = Comparison(
        metric=metric,
        factors=tuple(factors),
        baseline=runs.name(base),
        pair_by=pair_by,
        primary=primary,
        lower_is_better=lower_is_better,
        family="",
        margin=margin,
        detect=detect,
        cells=cells,
        differences=_differences(asked, cells),
        combinations=_combinations(asked),
        omnibus=omnibus,
        notes=(),
        sentences=(),
    )
    return corrected([replace(draft, notes=(*assumed, *notes, *runs.notes, *_lonely(draft), *untested))])[0]


def _unequal_threads(frame: pl.DataFrame, asked: Sequence[str]) -> list[str]:
    """A note where the runs were computed with different numbers of threads, on which their last digits depend."""
    if THREADS not in frame.columns or THREADS in asked:
        return []
    counts = in_order(levels(frame, THREADS).unique().sort().to_list())
    return (
        [
            f"the runs were computed with different numbers of threads ({listed(counts)}), on which their last digits "
            "depend"
        ]
        if len(counts) > 1
        else []
    )


def _check(primary: str, margin: float | None, detect: float | None) -> None:
    """Refuse options that make no sense."""
    if primary not in ("paired", "welch"):
        raise UserError(f"primary={primary} is neither paired nor welch")
    for key, value in {"margin": margin, "detect": detect}.items():
        if value is not None and not (value > 0 and isfinite(value)):
            raise UserError(f"{key}={value} must be a number above 0")


@dataclass(frozen=True)
class Asked:
    """The runs and what is asked of them."""

    runs: Runs
    base: Levels
    primary: Primary
    detect: float | None

    def cell(self, changed: Mapping[int, str]) -> CellRuns | None:
        """The baseline's runs with some factors (by place) at other levels."""
        return self.runs.cells.get(self.levels(changed))

    def levels(self, changed: Mapping[int, str]) -> Levels:
        """Their levels."""
        return tuple(changed.get(place, value) for place, value in enumerate(self.base))

    def seeds(self, found: Estimates) -> list[int | None]:
        """How many would find the effect the user named; None without one, and where the spread is not known.

        Of two pairs it is not: their standard deviation says next to nothing about that of more.
        """
        contrasts = found.contrasts
        if self.detect is None:
            return [None] * len(contrasts)
        scales = np.where(found.primary.df < LEAST_FREEDOM, nan, [each.scale for each in contrasts])
        needed = seeds_needed(self.detect, scales.tolist(), [each.freedom for each in contrasts])
        return [None if isnan(seeds) else int(seeds) for seeds in needed]


def _cells(asked: Asked) -> tuple[Cell, ...]:
    """Every cell, the baseline first."""
    known = [
        {value: rank for rank, value in enumerate((base, *_others(asked, place)))}
        for place, base in enumerate(asked.base)
    ]
    order = sorted(
        asked.runs.cells, key=lambda levels: [places[value] for places, value in zip(known, levels, strict=True)]
    )
    cells = [asked.runs.cells[levels] for levels in order]
    means = infer([contrast([cell], [1.0], "welch") for cell in cells], "welch").primary
    return tuple(
        Cell(
            name=asked.runs.name(levels),
            levels=levels,
            runs=cell.runs,
            diverged=cell.diverged,
            missing=cell.missing,
            n=len(cell.seeds),
            seeds=cell.seeds,
            mean=means[place],
            sd=cell.sd,
            nested=cell.nested,
        )
        for place, (levels, cell) in enumerate(zip(order, cells, strict=True))
    )


def _differences(asked: Asked, of: Sequence[Cell]) -> tuple[Difference, ...]:
    """Every other cell less the baseline; p-values and verdicts come with the correction."""
    base = asked.runs.cells[asked.base]
    names = [cell.levels for cell in of if cell.levels != asked.base]
    cells = [asked.runs.cells[levels] for levels in names]
    found = infer([contrast([cell, base], DIFFERENCE, asked.primary) for cell in cells], asked.primary)
    least, needed = detectable(found.primary), asked.seeds(found)
    differences, base_seeds = [], set(base.seeds)
    for place, (at, cell, each) in enumerate(zip(names, cells, found.contrasts, strict=True)):
        common = [seed for seed in cell.seeds if seed in base_seeds]
        differences.append(
            Difference(
                cell=asked.runs.name(at),
                baseline=asked.runs.name(asked.base),
                estimate=found.primary[place],
                paired=found.paired[place],
                welch=found.welch[place],
                pairs=each.pairs,
                correlation=correlation(cell.at(common).values, base.at(common).values),
                hedges_g=hedges(cell.values, base.values),
                p_holm=nan,
                p_sign_flip=nan if cell.drawn is not None or isnan(found.paired.p[place]) else sign_flip(each.by_seed),
                p_equivalent=nan,
                p_diverged=nan,
                detectable=float(least[place]),
                seeds_needed=needed[place],
                better=None,
            )
        )
    return tuple(differences)


def _pairs_of_factors(asked: Asked) -> list[tuple[int, int]]:
    """Places of two factors that both have levels beside the baseline's."""
    return list(combinations([place for place, found in enumerate(asked.runs.levels) if len(found) > 1], 2))


def _corners(asked: Asked, i: int, a: str, j: int, b: str) -> list[CellRuns | None]:
    """Both, the first alone, the second alone, neither."""
    return [asked.cell(changed) for changed in ({i: a, j: b}, {i: a}, {j: b}, {})]


def _others(asked: Asked, place: int) -> list[str]:
    """Levels of a factor beside the baseline's."""
    return [value for value in asked.runs.levels[place] if value != asked.base[place]]


def _combinations(asked: Asked) -> tuple[Combination, ...]:
    """Every two levels of every two factors; p-values and verdicts come with the correction."""
    names = [(i, a, j, b) for i, j in _pairs_of_factors(asked) for a in _others(asked, i) for b in _others(asked, j)]
    corners = [_corners(asked, *name) for name in names]
    primary = asked.primary
    over = [
        infer([contrast([cells[0], cells[alone]], DIFFERENCE, primary) for cells in corners], primary).primary
        for alone in (1, 2)
    ]
    found = infer([contrast(cells, INTERACTION, primary) for cells in corners], primary)
    least, needed = detectable(found.primary), asked.seeds(found)
    factors = asked.runs.factors
    return tuple(
        Combination(
            first=f"{factors[i]}={a}",
            second=f"{factors[j]}={b}",
            cell=asked.runs.name(asked.levels({i: a, j: b})),
            over_first=over[0][place],
            over_second=over[1][place],
            p_complementary=nan,
            complementary="not estimable",
            interaction=found.primary[place],
            interaction_paired=found.paired[place],
            interaction_welch=found.welch[place],
            seeds=_seeds(corners[place], each, primary),
            p_holm=nan,
            p_additive=nan,
            kind="not estimable",
            detectable=float(least[place]),
            seeds_needed=needed[place],
        )
        for place, ((i, a, j, b), each) in enumerate(zip(names, found.contrasts, strict=True))
    )


def _seeds(corners: Sequence[CellRuns | None], found: Contrast, primary: Primary) -> int:
    """Seeds behind an interaction: those of all four cells, or of the smallest one."""
    return found.pairs if primary == "paired" else min(len(cell.seeds) if cell else 0 for cell in corners)


def _omnibus(asked: Asked) -> tuple[tuple[Omnibus, ...], list[str]]:
    """An F-test for every two factors that have several interaction contrasts, or a note on why there is none."""
    tests, notes = [], []
    for i, j in _pairs_of_factors(asked):
        names = [(a, b) for a in _others(asked, i) for b in _others(asked, j)]
        found = _f_test(asked, i, j, names) if len(names) > 1 else None
        if isinstance(found, Omnibus):
            tests.append(found)
        elif found is not None:
            pair = f"{asked.runs.factors[i]} and {asked.runs.factors[j]}"
            notes.append(f"no test of all interactions of {pair} together: {found}")
    return tuple(tests), notes


def _f_test(asked: Asked, i: int, j: int, names: Sequence[tuple[str, str]]) -> Omnibus | str:
    """That all interactions of two factors (by place) at levels other than the baseline's are zero, or why not."""
    grid = [(a, b, asked.cell({i: a, j: b})) for a in asked.runs.levels[i] for b in asked.runs.levels[j]]
    cells = [cell for _, _, cell in grid if cell is not None and cell.seeds]
    if len(names) > MOST_CONTRASTS:
        return f"{len(names)} are too many"
    if len(cells) < len(grid):
        return "a cell has no runs"
    if asked.primary == "paired":
        common = [seed for seed in cells[0].seeds if all(seed in cell.seeds for cell in cells)]
        columns = [
            np.sum(
                [
                    w * cell.at(common).values
                    for w, cell in zip(INTERACTION, _corners(asked, i, a, j, b), strict=True)
                    if cell
                ],
                axis=0,
            )
            for a, b in names
        ]
        found = omnibus_paired(np.stack(columns, axis=1), max(cell.size for cell in cells))
        test, needs = "Hotelling's T², paired", f"more seeds, {len(names) + 1} in every cell"
    else:
        found = omnibus_unpaired([cell.values for cell in cells], [a for a, _, _ in grid], [b for _, b, _ in grid])
        test, needs = "two-way analysis of variance", "a second seed"
    if found is None:
        return f"it needs spread and {needs}"
    f, between, within, p = found
    return Omnibus((asked.runs.factors[i], asked.runs.factors[j]), test, f, (between, within), p)


def _lonely(draft: Comparison) -> list[str]:
    """Notes on what has a value and no inference."""
    alone = [cell.name for cell in draft.cells if cell.n == 1]
    notes = [f"one run has a value and no inference: {listed(alone)}"] if alone else []
    if draft.primary == "paired":
        few = [f"{found.pairs} with {found.cell}" for found in draft.differences if found.pairs < 2]
        notes += [f"pairs with the baseline are too few for inference: {listed(few)}"] if few else []
    flat = [found.cell for found in draft.differences if found.pairs > 1 and isnan(found.estimate.p)]
    varied = [name for place, name in enumerate(draft.factors) if len({cell.levels[place] for cell in draft.cells}) > 1]
    if len(varied) > 2:
        notes.append(f"interactions are of two factors, the others at the baseline: none is of all of {listed(varied)}")
    return notes + ([f"differences without any spread, so without inference: {listed(flat)}"] if flat else [])
