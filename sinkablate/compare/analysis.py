"""One metric of a table of runs, from the rows to a `Comparison`."""

from collections.abc import Mapping, Sequence

import polars as pl

from sinkablate.compare.comparison import Comparison, Primary


def compare_table(frame: pl.DataFrame, *, metric: str, factors: Sequence[str],
                  baseline: Mapping[str, str] | None = None, pair_by: str | None = "seed", primary: Primary = "paired",
                  lower_is_better: bool = False, margin: float | None = None, detect: float | None = None,
                  nested: str | None = None, image: str | None = None, diverged: str | None = None) -> Comparison:
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
    raise NotImplementedError
