"""Contrasts of cells of runs: paired by seed and as independent cells, side by side."""

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
    """A weighted sum of cells, of the `pairs` seeds that all of them have and of independent cells.

    `by_seed` (pairs,) are the contrasts seed by seed. `scale` and `freedom` are what `seeds_needed` asks for: how the
    primary estimate's error and degrees of freedom grow with the seeds; NaN where images are resampled too, whose part
    of the error no seed takes away.
    """

    pairs: int
    by_seed: Floats
    paired: Part
    welch: Part
    scale: float
    freedom: float


def contrast(cells: Sequence[CellRuns | None], weights: Sequence[float], primary: Primary) -> Contrast:
    """Both estimates of a weighted sum of cells; a cell that is not there leaves nothing of either."""
    there = [cell for cell in cells if cell is not None]
    if len(there) < len(cells):
        return Contrast(0, np.empty(0), NOTHING, NOTHING, nan, nan)
    shared = reduce(lambda seeds, cell: seeds & set(cell.seeds), there[1:], set(there[0].seeds))
    common = [seed for seed in there[0].seeds if seed in shared]
    same = [cell.at(common) for cell in there]
    by_seed: Floats = np.sum([w * cell.values for w, cell in zip(weights, same, strict=True)], axis=0)
    together, apart = _parts(same, by_seed, weights), _independent(there, weights)
    if any(cell.drawn is not None for cell in there):
        return Contrast(len(common), by_seed, together, apart, nan, nan)
    if primary == "paired":
        return Contrast(len(common), by_seed, together, apart, float(spread(by_seed, _size(same))), 1.0)
    variances = np.array([(w * cell.sd) ** 2 for w, cell in zip(weights, there, strict=True)])
    total = variances.sum()
    freedom = total**2 / (variances**2).sum() if total > 0 else nan
    return Contrast(len(common), by_seed, together, apart, float(np.sqrt(total)), float(freedom))


def _parts(same: Sequence[CellRuns], by_seed: Floats, weights: Sequence[float]) -> Part:
    """Of the same seeds in every cell."""
    drawn = [cell.drawn for cell in same if cell.drawn is not None]
    if drawn:
        return bootstrap([cell.values for cell in same], drawn, weights, same_seeds=True)
    value, se, df = paired(by_seed, _size(same))
    return float(value), float(se), df


def _size(cells: Sequence[CellRuns]) -> float:
    """The largest value of several cells."""
    return max(cell.size for cell in cells)


def _independent(cells: Sequence[CellRuns], weights: Sequence[float]) -> Part:
    """Of cells with seeds of their own."""
    drawn = [cell.drawn for cell in cells if cell.drawn is not None]
    if drawn:
        return bootstrap([cell.values for cell in cells], drawn, weights, same_seeds=False)
    value, se, df = combined([cell.moments for cell in cells], weights)
    return float(value), float(se), float(df)


@dataclass(frozen=True)
class Estimates:
    """Many contrasts with their inference; `primary` is one of the two others."""

    contrasts: Sequence[Contrast]
    paired: Inference
    welch: Inference
    primary: Inference


def infer(contrasts: Sequence[Contrast], primary: Primary) -> Estimates:
    """Intervals and p of many contrasts at once."""
    together, apart = stack([found.paired for found in contrasts]), stack([found.welch for found in contrasts])
    return Estimates(contrasts, together, apart, together if primary == "paired" else apart)
