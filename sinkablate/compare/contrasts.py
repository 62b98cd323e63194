"""Contrasts (weighted sums) of cells, estimated both from runs paired by seed and from independent cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import nan

import numpy as np

from sinkablate.compare.comparison import Primary
from sinkablate.compare.runs import CellRuns
from sinkablate.compare.statistics import Floats, Inference, bootstrap, combined, paired, spread, stack

Part = tuple[float, float, float]
"""Estimate, standard error, degrees of freedom."""
NOTHING: Part = (nan, nan, nan)
DIFFERENCE = (1.0, -1.0)


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of cells.

    Attributes:
        pairs: Number of seeds that all cells have.
        by_seed: The weighted sum of each of these seeds, (pairs,).
        paired: Estimate from these seeds.
        welch: Estimate from independent cells.
        scale: Standard error of the primary estimate times the square root of the number of seeds, for `seeds_needed`;
            NaN where images are resampled too, because more seeds do not reduce their part of the error.
        freedom: Degrees of freedom of the primary estimate per seed beyond the first, for `seeds_needed`.
    """

    pairs: int
    by_seed: Floats
    paired: Part
    welch: Part
    scale: float
    freedom: float


def contrast(cells: Sequence[CellRuns | None], weights: Sequence[float], primary: Primary) -> Contrast:
    """Estimate a weighted sum of cells in both ways; both are NaN if a cell has no runs."""
    present = [cell for cell in cells if cell is not None]
    if len(present) < len(cells):
        return Contrast(0, np.empty(0), NOTHING, NOTHING, nan, nan)
    shared = reduce(lambda seeds, cell: seeds & set(cell.seeds), present[1:], set(present[0].seeds))
    common = [seed for seed in present[0].seeds if seed in shared]
    same = [cell.at(common) for cell in present]
    by_seed: Floats = np.sum([w * cell.values for w, cell in zip(weights, same, strict=True)], axis=0)
    paired_part, welch_part = _same_seeds(same, by_seed, weights), _independent(present, weights)
    if any(cell.drawn is not None for cell in present):
        return Contrast(len(common), by_seed, paired_part, welch_part, nan, nan)
    if primary == "paired":
        return Contrast(len(common), by_seed, paired_part, welch_part, float(spread(by_seed, _size(same))), 1.0)
    variances = np.array([(w * cell.sd) ** 2 for w, cell in zip(weights, present, strict=True)])
    total = variances.sum()
    freedom = total**2 / (variances**2).sum() if total > 0 else nan
    return Contrast(len(common), by_seed, paired_part, welch_part, float(np.sqrt(total)), float(freedom))


def _same_seeds(same: Sequence[CellRuns], by_seed: Floats, weights: Sequence[float]) -> Part:
    """Estimate the weighted sum from the same seeds in every cell."""
    drawn = [cell.drawn for cell in same if cell.drawn is not None]
    if drawn:
        return bootstrap([cell.values for cell in same], drawn, weights, same_seeds=True)
    value, se, df = paired(by_seed, _size(same))
    return float(value), float(se), df


def _size(cells: Sequence[CellRuns]) -> float:
    """Return the largest absolute value in several cells."""
    return max(cell.size for cell in cells)


def _independent(cells: Sequence[CellRuns], weights: Sequence[float]) -> Part:
    """Estimate the weighted sum from cells with independent seeds."""
    drawn = [cell.drawn for cell in cells if cell.drawn is not None]
    if drawn:
        return bootstrap([cell.values for cell in cells], drawn, weights, same_seeds=False)
    value, se, df = combined([cell.moments for cell in cells], weights)
    return float(value), float(se), float(df)


@dataclass(frozen=True)
class Estimates:
    """Many contrasts with their inference; `primary` is either `paired` or `welch`."""

    contrasts: Sequence[Contrast]
    paired: Inference
    welch: Inference
    primary: Inference


def infer(contrasts: Sequence[Contrast], primary: Primary) -> Estimates:
    """Compute the intervals and p-values of many contrasts at once."""
    paired_parts = stack([contrast.paired for contrast in contrasts])
    welch_parts = stack([contrast.welch for contrast in contrasts])
    return Estimates(contrasts, paired_parts, welch_parts, paired_parts if primary == "paired" else welch_parts)
