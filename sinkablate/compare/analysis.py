"""Compare the runs of a table on one metric: from the rows to a `Comparison`. Reads and writes no file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isfinite, isnan
from typing import Any

import polars as pl

from sinkablate.compare.baseline import choose_baseline
from sinkablate.compare.comparison import Comparison, Primary
from sinkablate.compare.correction import corrected
from sinkablate.compare.design import Design
from sinkablate.compare.directions import lower_is_better as direction_of
from sinkablate.compare.estimates import cell_summaries, combinations, differences
from sinkablate.compare.omnibus import omnibus_tests
from sinkablate.compare.runs import listed
from sinkablate.compare.table import as_polars, in_order, levels
from sinkablate.compare.tidy import tidy
from sinkablate.config.types import checked
from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list

THREADS = "threads"
"""Column with the number of CPU threads that a run was computed with."""


@checked
def compare(
    frame: Any,
    *,
    metric: str,
    factors: Sequence[str],
    baseline: Mapping[str, Any] | None = None,
    pair_by: str | None = "seed",
    primary: Primary = "paired",
    lower_is_better: bool | None = None,
    margin: float | None = None,
    detect: float | None = None,
    nested: str | None = None,
    image: str | None = None,
    diverged: str | None = None,
) -> Comparison:
    """Compare every combination of factor levels in a table of runs with a baseline, on one metric.

    The numbers are those of `sinkablate compare`: differences and interactions with confidence intervals and corrected
    p-values, and the number of seeds that an effect needs.

    Args:
        frame: A polars or pandas table with one row per run (or per run and `nested` value, or per run and `image`).
        metric: Column of numbers to compare.
        factors: Columns whose combinations of levels are the cells. Levels are compared as text: 4.0 and "4" are the
            same level.
        baseline: Level of each factor in the cell that the others are compared with. The default for a
            factor is its level `none`, `0`, `false`, `off` or `baseline`.
        pair_by: Column whose equal values in two cells form pairs; None for unpaired runs.
        primary: Test that decides about a difference: `paired`, or `welch` for runs that do not share their random
            state by seed. The result holds both.
        lower_is_better: Whether smaller values of the metric are better; None decides by its name: a loss is better if
            it is lower and an accuracy if it is higher. Other metrics are only called higher or lower.
        margin: Equivalence margin of the TOST, in the metric's units; None for no test of equivalence.
        detect: Effect, in the metric's units, for which the number of seeds needed is computed.
        nested: Column of seeds within a run (probe seeds of a backbone), which are averaged per run.
        image: Column of images; intervals then come from a bootstrap over seeds and images.
        diverged: Column that marks diverged runs; None for the column `diverged`, if there is one.

    Returns:
        `.cells`, `.differences`, `.combinations`, `.omnibus`, `.notes` and `.sentences`.

    Raises:
        UserError: A column or level does not exist, the metric has no finite value or was measured by different
            protocols, a run has two rows, or there is nothing to compare.

    Example::

        table = sa.compare(frame, metric="val/acc1", factors=["gate", "registers"])
        print(*table.sentences, sep="\\n")
    """
    frame = as_polars(frame)
    _check(primary, margin, detect)
    _refuse_mixed_protocols(frame, metric)
    if diverged is None and "diverged" in frame.columns and "diverged" not in (metric, *factors):
        diverged = "diverged"
    notes = []
    if primary == "welch" and pair_by is not None and pair_by not in frame.columns:
        notes.append(f"there is no {pair_by} column, so runs are not paired")
        pair_by = None
    if primary == "paired":
        _require_pairs(frame, pair_by)
    lower_is_better = direction_of(metric) if lower_is_better is None else lower_is_better
    if lower_is_better is None:
        notes.append(
            f"it is not known whether higher or lower {metric} is better: a difference is called higher or lower, and "
            "nothing is called complementary; if one is better, set lower_is_better"
        )
    notes += _unequal_threads(frame, (metric, *factors))
    runs = tidy(frame, metric, factors, pair_by, nested, image, diverged)
    base, assumed = choose_baseline(runs, {name: str(value) for name, value in (baseline or {}).items()})
    design = Design(runs, base, primary, detect)
    cells, (omnibus, untested) = cell_summaries(design), omnibus_tests(design)
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
        differences=differences(design, cells),
        combinations=combinations(design),
        omnibus=omnibus,
        notes=(),
        sentences=(),
    )
    return corrected([replace(draft, notes=(*assumed, *notes, *runs.notes, *_without_inference(draft), *untested))])[0]


def _check(primary: str, margin: float | None, detect: float | None) -> None:
    """Refuse an unknown primary test, and a margin or effect that is not a positive number."""
    if primary not in ("paired", "welch"):
        raise UserError(f"primary={primary}: must be paired or welch")
    for key, value in {"margin": margin, "detect": detect}.items():
        if value is not None and not (value > 0 and isfinite(value)):
            raise UserError(f"{key}={value}: must be a number above 0")


def _refuse_mixed_protocols(frame: pl.DataFrame, metric: str) -> None:
    """Refuse numbers of an evaluation that were not all measured by the same protocol, such as `segmentation/miou`."""
    column = f"{metric.partition('/')[0]}/protocol"
    if column not in frame.columns or metric not in frame.columns or metric.count("/") != 1:
        return
    protocols = in_order(frame.filter(pl.col(metric).is_not_null())[column].drop_nulls().cast(pl.String).to_list())
    if len(protocols) > 1:
        raise UserError(
            f"metric={metric}: measured by different protocols ({listed(protocols)}), whose numbers cannot be "
            f"compared; evaluate all runs by one, or select the rows of one with --where '{column}={protocols[0]}'"
        )


def _require_pairs(frame: pl.DataFrame, pair_by: str | None) -> None:
    """Refuse the paired test without a column that pairs the runs."""
    if pair_by is None:
        raise UserError("primary=paired: pair_by must name the column that pairs runs")
    if pair_by not in frame.columns:
        raise UserError(
            f"pair_by={pair_by}: no such column (for unpaired runs, use primary=welch)"
            f"{did_you_mean_or_list(pair_by, frame.columns)}"
        )


def _unequal_threads(frame: pl.DataFrame, used: Sequence[str]) -> list[str]:
    """Return a note if the runs were computed with different numbers of threads, which change their last digits."""
    if THREADS not in frame.columns or THREADS in used:
        return []
    counts = in_order(levels(frame, THREADS).unique().sort().to_list())
    if len(counts) < 2:
        return []
    return [f"the runs used different numbers of CPU threads ({listed(counts)}), which can change the last digits"]


def _without_inference(draft: Comparison) -> list[str]:
    """Return notes on cells and differences without an interval or p-value, and on what the interactions leave out."""
    single = [cell.name for cell in draft.cells if cell.n == 1]
    notes = [f"cells with a single run have no confidence interval: {listed(single)}"] if single else []
    if draft.primary == "paired":
        few = [f"{difference.pairs} with {difference.cell}" for difference in draft.differences if difference.pairs < 2]
        notes += [f"too few pairs with the baseline for an interval or a test: {listed(few)}"] if few else []
    flat = [
        difference.cell for difference in draft.differences if difference.pairs > 1 and isnan(difference.estimate.p)
    ]
    varied = [
        factor for index, factor in enumerate(draft.factors) if len({cell.levels[index] for cell in draft.cells}) > 1
    ]
    if len(varied) > 2:
        notes.append(
            f"every interaction is between two of {listed(varied)}, with the other factors at the baseline; "
            "higher-order interactions are not estimated"
        )
    return notes + (
        [f"differences that do not vary between pairs have no interval and no p-value: {listed(flat)}"] if flat else []
    )
