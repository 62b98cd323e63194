"""The factorial design behind a comparison: which cells a contrast is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isnan, nan

import numpy as np

from sinkablate.compare.comparison import Primary
from sinkablate.compare.contrasts import Estimates
from sinkablate.compare.power import seeds_needed
from sinkablate.compare.runs import CellRuns, Levels, Runs

LEAST_FREEDOM = 2
"""With fewer degrees of freedom, a standard deviation is too uncertain to say how many seeds an effect needs."""


@dataclass(frozen=True)
class Design:
    """The runs of a table, their baseline, and the options that decide which numbers are computed.

    Factors are addressed by their index in `runs.factors`.
    """

    runs: Runs
    baseline: Levels
    primary: Primary
    detect: float | None

    def levels(self, changed: Mapping[int, str]) -> Levels:
        """Return the baseline's levels with some factors (index -> level) changed."""
        return tuple(changed.get(factor, level) for factor, level in enumerate(self.baseline))

    def cell(self, changed: Mapping[int, str]) -> CellRuns | None:
        """Return the runs at `levels(changed)`; None if there are none."""
        return self.runs.cells.get(self.levels(changed))

    def other_levels(self, factor: int) -> list[str]:
        """Return the levels of a factor without the baseline's."""
        return [level for level in self.runs.levels[factor] if level != self.baseline[factor]]

    def factor_pairs(self) -> list[tuple[int, int]]:
        """Return every two factors that both have more than one level."""
        varied = [factor for factor, levels in enumerate(self.runs.levels) if len(levels) > 1]
        return list(combinations(varied, 2))

    def corners(self, first: int, a: str, second: int, b: str) -> list[CellRuns | None]:
        """Return the cells with both factors changed, the first alone, the second alone, and neither."""
        return [self.cell(changed) for changed in ({first: a, second: b}, {first: a}, {second: b}, {})]

    def seeds_needed(self, estimates: Estimates) -> Sequence[int | None]:
        """Return the number of seeds with which each contrast would detect the effect `detect` with 80 % power.

        None without `detect`, and where the spread is unknown. It counts as unknown with two pairs, whose standard
        deviation is too uncertain.
        """
        contrasts = estimates.contrasts
        if self.detect is None:
            return [None] * len(contrasts)
        scales = np.where(estimates.primary.df < LEAST_FREEDOM, nan, [contrast.scale for contrast in contrasts])
        needed = seeds_needed(self.detect, scales.tolist(), [contrast.freedom for contrast in contrasts])
        return [None if isnan(seeds) else int(seeds) for seeds in needed]
