"""Two mechanisms together: two different sentences, and what each needs. All arrays may have leading axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from sinkablate.compare.statistics import ALPHA, Floats, Inference, spread

INTERACTION = (1.0, -1.0, -1.0, 1.0)
"""Weights of the cells (both, first alone, second alone, neither): (both - first) - (second - neither)."""


def intersection_union(over_first: Inference, over_second: Inference, sign: Any = 1) -> Any:
    """p that the combination is not better than both parts: the larger of the two (Berger 1982), made two-sided.

    It is below .05 exactly where both 95 % intervals lie on the better side of zero. No correction is needed for
    there being two tests. NaN where either has none.

    Args:
        over_first: The combination less the first alone.
        over_second: The combination less the second alone.
        sign: 1 if larger is better, -1 if smaller is.
    """
    sides = [stats.t.sf(sign * part.value / part.se, part.df) for part in (over_first, over_second)]
    return np.minimum(1, 2 * np.maximum(*sides))


def claim(p_complementary: Any) -> Any:
    """Whether *complementary* is supported, from its p after correction."""
    p = np.asarray(p_complementary)
    return np.select([np.isnan(p), p < ALPHA], ["not estimable", "supported"], "not supported")


def kind(interaction: Any, p_holm: Any, p_additive: Any, sign: Any = 1) -> Any:
    """What an interaction is: synergistic, sub-additive, additive, undetermined, or not estimable.

    Args:
        interaction: Its estimate.
        p_holm: p of no interaction, after correction.
        p_additive: p of `equivalence` to zero after correction; NaN where the user named no margin.
        sign: 1 if larger is better, -1 if smaller is.
    """
    value, p = sign * np.asarray(interaction), np.asarray(p_holm)
    return np.select(
        [np.isnan(p), (p < ALPHA) & (value > 0), p < ALPHA, np.asarray(p_additive) < ALPHA],
        ["not estimable", "synergistic", "sub-additive", "additive"],
        "undetermined",
    )


def omnibus_paired(contrasts: Floats, size: float = 0.0) -> tuple[float, float, float, float] | None:
    """Hotelling's T² that several interaction contrasts taken seed by seed, (n, contrasts), are all zero: F, its df, p.

    No sphericity is assumed. None where there are not more seeds than contrasts, or no spread (see `spread`, which
    explains `size`).
    """
    from statsmodels.stats.multivariate import test_mvmean

    n, count = contrasts.shape
    if (
        n <= count
        or not (spread(contrasts.T, size) > 0).all()
        or np.linalg.matrix_rank(contrasts - contrasts.mean(axis=0)) < count
    ):
        return None
    found = test_mvmean(contrasts)
    return float(found.statistic), float(found.df[0]), float(found.df[1]), float(found.pvalue)


def omnibus_unpaired(
    values: Sequence[Floats], first: Sequence[str], second: Sequence[str]
) -> tuple[float, float, float, float] | None:
    """F of the interaction in the two-way analysis of variance: F, its df, p; one variance for all cells is assumed.

    Args:
        values: Of each cell (n_i,).
        first: Each cell's level of the first factor.
        second: And of the second.
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
