"""Compare the cells of a table of runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from sinkablate.compare import analysis
from sinkablate.compare.comparison import Comparison, Primary
from sinkablate.errors import UserError


def compare(
    frame: Any,
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
    """Test the differences and interactions in a table of runs, and compute how many seeds an effect needs.

    The numbers are those of `sinkablate compare`.

    Args:
        frame: A polars or pandas table with one row per run: factors, seed, metrics.
        metric: The column of numbers to compare.
        factors: The columns that make the cells.
        baseline: Level of each factor in the cell to compare with; a factor that is not named starts at none, 0,
            false, off or baseline.
        pair_by: Runs of two cells with the same value in this column are pairs; None: there are no pairs.
        primary: The test that decides: `paired`, or `welch` for runs that do not share their random state by seed.
        lower_is_better: Smaller values of the metric are better.
        margin: Cells that differ by less count as equal (TOST), in the metric's units.
        detect: An effect in the metric's units, to compute how many seeds would detect it.
        nested: Column of seeds within a run, which are averaged.
        image: Column of images where a row is one image of a run.
        diverged: Column that says which runs diverged; the column `diverged` if there is one.

    Returns:
        `.cells`, `.differences`, `.combinations`, `.omnibus`, `.notes` and `.sentences`.

    Raises:
        UserError: A column, level or number cannot be used as requested.

    Example::

        table = sa.compare(frame, metric="val/acc1", factors=["gate", "registers"])
        print(*table.sentences, sep="\\n")
    """
    if isinstance(factors, str):
        raise UserError(f"factors={factors!r} must be a list of column names")
    return analysis.compare(
        _polars(frame),
        metric=metric,
        factors=list(factors),
        baseline=baseline,
        pair_by=pair_by,
        primary=primary,
        lower_is_better=lower_is_better,
        margin=margin,
        detect=detect,
        nested=nested,
        image=image,
        diverged=diverged,
    )


def _polars(frame: Any) -> pl.DataFrame:
    """Return a polars or pandas table as a polars one; pandas' own conversion would need pyarrow."""
    if isinstance(frame, pl.DataFrame):
        return frame
    if not hasattr(frame, "columns") or not hasattr(frame, "isna"):
        raise UserError(f"frame is a {type(frame).__name__}; give a polars or pandas table")
    columns = {
        str(name): frame[name].astype(object).where(~frame[name].isna(), None).tolist() for name in frame.columns
    }
    return pl.DataFrame(columns, strict=False)
