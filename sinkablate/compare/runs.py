"""The cells of a design, each with its seeds and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sinkablate.compare.statistics import Floats, moments

LISTED = 5
"""Number of items that a note shows of a longer list."""
Levels = tuple[str, ...]


@dataclass(frozen=True)
class CellRuns:
    """The runs of one cell.

    Attributes:
        seeds: Seeds of the runs that have a value, in order.
        values: Their values, (n,).
        runs: Number of runs, including those without a value.
        diverged: Number of runs that diverged.
        missing: Number of runs that did not diverge and have no finite value.
        nested: Number of values averaged into a run.
        drawn: The values over resampled images, (draws, n); None unless the metric is given per image.
    """

    seeds: tuple[str, ...]
    values: Floats
    runs: int
    diverged: int
    missing: int
    nested: int
    drawn: Floats | None = None

    @cached_property
    def moments(self) -> tuple[np.float64, np.float64, np.float64]:
        """Mean, standard error of the mean, and degrees of freedom."""
        mean, error, freedom = moments(self.values)
        return np.float64(mean), np.float64(error), np.float64(freedom)

    @property
    def sd(self) -> float:
        """Sample standard deviation."""
        return float(self.moments[1]) * len(self.values) ** 0.5

    @cached_property
    def size(self) -> float:
        """Largest absolute value; a contrast that is tiny compared with it may be rounding."""
        return float(np.abs(self.values).max()) if self.values.size else 0.0

    def at(self, seeds: Sequence[str]) -> "CellRuns":
        """Return only the runs of these seeds, in this order."""
        if tuple(seeds) == self.seeds:
            return self
        index = {seed: position for position, seed in enumerate(self.seeds)}
        picked = [index[seed] for seed in seeds]
        drawn = None if self.drawn is None else self.drawn[:, picked]
        return CellRuns(tuple(seeds), self.values[picked], self.runs, self.diverged, self.missing, self.nested, drawn)


@dataclass(frozen=True)
class Runs:
    """A table as a factorial design: the levels of every factor, the cells by their levels, and notes on the table."""

    factors: tuple[str, ...]
    levels: tuple[Levels, ...]
    cells: dict[Levels, CellRuns]
    notes: tuple[str, ...]

    def name(self, cell: Levels) -> str:
        """Return the name of a cell, as in `gate=none, registers=0`."""
        return ", ".join(f"{factor}={level}" for factor, level in zip(self.factors, cell, strict=True))


def listed(names: Sequence[str], total: int | None = None) -> str:
    """Return the beginning of a list as text, with the number of items left out."""
    more = (total or len(names)) - min(LISTED, len(names))
    return "; ".join(names[:LISTED]) + (f"; and {more} more" if more else "")
