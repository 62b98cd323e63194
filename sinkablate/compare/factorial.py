"""Two mechanisms together: complementary or not, and their interaction. All arrays may have leading axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from sinkablate.compare.statistics import ALPHA, Floats, Inference, spread

INTERACTION = (1.0, -1.0, -1.0, 1.0)
"""Weights of the cells (both, first alone, second alone, neither) in (both - first) - (second - neither)."""


def intersection_union(over_first: Inference, over_second: Inference, sign: Any = 1) -> Any:
    """Return the p-value that a combination is not better than each of its parts.

    It is the larger of the two one-sided p-values (Berger 1982), doubled. It is below .05 exactly where both 95 %
    intervals lie on the better side of zero, and needs no correction for two tests. NaN where either part is undefined
    and for a metric without a better direction.

    Args:
        over_first: The combination minus the first alone.
        over_second: The combination minus the second alone.
        sign: 1 if larger is better, -1 if smaller is, NaN if neither is.
    """
    sides = [stats.t.sf(sign * part.value / part.se, part.df) for part in (over_first, over_second)]
    return np.minimum(1, 2 * np.maximum(*sides))


def claim(p_complementary: Any) -> Any:
    """Return whether *complementary* is supported, from its p-value after correction."""
    p = np.asarray(p_complementary)
    return np.select([np.isnan(p), p < ALPHA], ["not estimable", "supported"], "not supported")


def kind(interaction: Any, p_holm: Any, p_additive: Any, sign: Any = 1) -> Any:
    """Classify an interaction, as in `Combination.kind`.

    Args:
        interaction: Its estimate.
        p_holm: p-value of no interaction, after correction.
        p_additive: p-value of `equivalence` to zero, after correction; NaN without a margin.
        sign: 1 if larger is better, -1 if smaller is, NaN if neither is.
    """
    value, p = np.asarray(interaction), np.asarray(p_holm)
    established, gain = p < ALPHA, sign * value
    readings = {
        "not estimable": np.isnan(p),
        "synergistic": established & (gain > 0),
        "sub-additive": established & (gain < 0),
        "above additive": established & (value > 0),
        "below additive": established,
        "additive": np.asarray(p_additive) < ALPHA,
    }
    return np.select([*readings.values()], [*readings], "undetermined")


def omnibus_paired(contrasts: Floats, size: float = 0.0) -> tuple[float, float, float, float] | None:
    """Test with Hotelling's T² that several interaction contrasts, paired by seed, are all zero.

    Sphericity is not assumed.

    Args:
        contrasts: Contrasts of each seed, (n, contrasts).
        size: As for `spread`.

    Returns:
        F, its two degrees of freedom, and p; None unless there are more seeds than contrasts, and spread.
    """
    from statsmodels.stats.multivariate import test_mvmean

    n, count = contrasts.shape
    if (
        n <= count
        or not (spread(contrasts.T, size) > 0).all()
        or np.linalg.matrix_rank(contrasts - contrasts.mean(axis=0)) < count
    ):
        return None
    test = test_mvmean(contrasts)
    return float(test.statistic), float(test.df[0]), float(test.df[1]), float(test.pvalue)


def omnibus_unpaired(
    values: Sequence[Floats], first: Sequence[str], second: Sequence[str]
) -> tuple[float, float, float, float] | None:
    """Test the interaction in a two-way analysis of variance, which assumes one variance for all cells.

    Args:
        values: Values of each cell, (n_i,).
        first: Level of the first factor of each cell.
        second: Level of the second factor of each cell.

    Returns:
        F, its two degrees of freedom, and p; None without spread or residual degrees of freedom.
    """
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rows = pd.DataFrame(
        [(float(value), a, b) for cell, a, b in zip(values, first, second, strict=True) for value in cell],
        columns=["value", "first", "second"],
    )
    fit = ols("value ~ C(first) * C(second)", rows).fit()
    if fit.df_resid < 1 or not any(spread(cell) > 0 for cell in values):
        return None
    row = anova_lm(fit, typ=2).loc["C(first):C(second)"]
    return float(row["F"]), float(row["df"]), float(fit.df_resid), float(row["PR(>F)"])
