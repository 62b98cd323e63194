"""Detectable effects and the number of seeds an effect needs, for two-sided tests at 5 % with 80 % power."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from sinkablate.compare.comparison import Primary
from sinkablate.compare.statistics import ALPHA, Floats, Inference

POWER = 0.8
MOST_SEEDS = 10_000_000
SINGLE_RUN: dict[Primary, dict[str, tuple[float, float]]] = {
    "paired": {"pairs without correlation": (2**0.5, 1), "correlation .5": (1, 1), "an interaction": (2, 1)},
    "welch": {"a difference": (2**0.5, 2), "an interaction": (2, 4)},
}
"""`scale`, in standard deviations of a single run, and `freedom` of typical contrasts, as in `seeds_needed`."""


def noncentrality(df: ArrayLike) -> Any:
    """Return the effect, in standard errors, that a t-test detects with 80 % power.

    The power on the wrong side of zero, which is below 1e-5, is left out.

    Args:
        df: Degrees of freedom. The result is NaN where they are not positive, and that of the normal distribution
            where they are infinite.
    """
    freedom = np.asarray(df, dtype=np.float64)
    freedom = np.where(freedom > 0, freedom, np.nan)
    known_spread = stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)
    return np.where(
        np.isinf(freedom), known_spread, special.nctdtrinc(freedom, 1 - POWER, stats.t.ppf(1 - ALPHA / 2, freedom))
    )


def detectable(estimate: Inference) -> Any:
    """Return the smallest true effect that an estimate detects with 80 % power, in its units; NaN without inference."""
    return estimate.se * noncentrality(estimate.df)


def seeds_needed(effect: float, scales: Sequence[float], freedoms: Sequence[float]) -> Floats:
    """Return the smallest number of seeds that detects an effect with 80 % power.

    NaN where the spread is unknown or more than ten million seeds are needed.

    Args:
        effect: Size of the effect.
        scales: Standard error of each estimate times the square root of the number of seeds.
        freedoms: Degrees of freedom per seed beyond the first: 1 for pairs, up to the number of cells otherwise.
    """
    scale, freedom = np.array(scales, dtype=np.float64), np.array(freedoms, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # start from a known spread: the quantiles of t are larger, so fewer seeds never suffice and few more are needed
        seeds = np.maximum(np.ceil((noncentrality(np.inf) * scale / effect) ** 2), 2)
    seeds = np.where((scale > 0) & (freedom > 0) & (seeds < MOST_SEEDS), seeds, np.nan)
    too_few = ~np.isnan(seeds)
    while too_few.any():
        n = seeds[too_few]
        too_few[too_few] = scale[too_few] / np.sqrt(n) * noncentrality(freedom[too_few] * (n - 1)) > abs(effect)
        seeds[too_few] += 1
    return seeds


def in_single_run_sd(n: int, primary: Primary) -> dict[str, float]:
    """Return the effects that n seeds detect, in standard deviations of a single run, by name; NaN for one seed."""
    return {
        name: scale / n**0.5 * float(noncentrality(freedom * (n - 1)))
        for name, (scale, freedom) in SINGLE_RUN[primary].items()
    }
