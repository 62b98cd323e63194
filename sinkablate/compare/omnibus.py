"""F-tests that all interaction contrasts of two factors are zero."""

import numpy as np

from sinkablate.compare.comparison import Omnibus
from sinkablate.compare.design import Design
from sinkablate.compare.factorial import INTERACTION, omnibus_paired, omnibus_unpaired
from sinkablate.compare.runs import CellRuns
from sinkablate.compare.statistics import Floats

MOST_CONTRASTS = 50
"""With more interaction contrasts, no omnibus test is made."""


def omnibus_tests(design: Design) -> tuple[tuple[Omnibus, ...], list[str]]:
    """Test every two factors that have several interaction contrasts.

    Returns:
        The tests, and for each test that cannot be made a note that says why.
    """
    tests, notes = [], []
    for first, second in design.factor_pairs():
        levels = [(a, b) for a in design.other_levels(first) for b in design.other_levels(second)]
        if len(levels) < 2:
            continue
        result = _f_test(design, first, second, levels)
        if isinstance(result, Omnibus):
            tests.append(result)
        else:
            pair = f"{design.runs.factors[first]} and {design.runs.factors[second]}"
            notes.append(f"no test of all interactions of {pair} together: {result}")
    return tuple(tests), notes


def _f_test(design: Design, first: int, second: int, levels: list[tuple[str, str]]) -> Omnibus | str:
    """Test two factors at all `levels` other than the baseline's, or return the reason why that is not possible."""
    grid = [
        (a, b, design.cell({first: a, second: b}))
        for a in design.runs.levels[first]
        for b in design.runs.levels[second]
    ]
    cells = [cell for _, _, cell in grid if cell is not None and cell.seeds]
    if len(levels) > MOST_CONTRASTS:
        return f"{len(levels)} are too many"
    if len(cells) < len(grid):
        return "a cell has no runs"
    if design.primary == "paired":
        contrasts = _contrasts_by_seed(design, first, second, levels, cells)
        result = omnibus_paired(contrasts, max(cell.size for cell in cells))
        test, needs = "Hotelling's T², paired", f"more seeds, {len(levels) + 1} in every cell"
    else:
        result = omnibus_unpaired([cell.values for cell in cells], [a for a, _, _ in grid], [b for _, b, _ in grid])
        test, needs = "two-way analysis of variance", "a second seed"
    if result is None:
        return f"it needs spread and {needs}"
    f, between, within, p = result
    return Omnibus((design.runs.factors[first], design.runs.factors[second]), test, f, (between, within), p)


def _contrasts_by_seed(
    design: Design, first: int, second: int, levels: list[tuple[str, str]], cells: list[CellRuns]
) -> Floats:
    """Return the interaction contrasts of the seeds that all cells have: (seeds, contrasts)."""
    common = [seed for seed in cells[0].seeds if all(seed in cell.seeds for cell in cells)]
    columns = [
        np.sum(
            [
                weight * cell.at(common).values
                for weight, cell in zip(INTERACTION, design.corners(first, a, second, b), strict=True)
                if cell
            ],
            axis=0,
        )
        for a, b in levels
    ]
    return np.stack(columns, axis=1)
