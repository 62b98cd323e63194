"""What the seeds at hand could have found, and how many would find an effect: two-sided tests at 5 %, 80 % power."""

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
"""`scale` of a contrast in standard deviations of a single run, and `freedom`, as `seeds_needed` takes them."""


def noncentrality(df: ArrayLike) -> Any:
    """The effect, in standard errors, that a t-test finds with 80 % power.

    The power on the wrong side of zero is left out; it is below 1e-5.

    Args:
        df: Degrees of freedom; NaN for those that are not positive, the normal distribution's for infinitely many.
    """
    freedom = np.asarray(df, dtype=np.float64)
    freedom = np.where(freedom > 0, freedom, np.nan)
    known_spread = stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER)
    return np.where(
        np.isinf(freedom), known_spread, special.nctdtrinc(freedom, 1 - POWER, stats.t.ppf(1 - ALPHA / 2, freedom))
    )


def detectable(estimate: Inference) -> Any:
    """The smallest true effect that such an estimate finds with 80 % power, in its units; NaN without inference."""
    return estimate.se * noncentrality(estimate.df)


def seeds_needed(effect: float, scales: Sequence[float], freedoms: Sequence[float]) -> Floats:
    """The fewest seeds that find an effect with 80 % power; NaN where the spread is unknown, or it takes ten million.

    Args:
        effect: Its size.
        scales: Standard error of each estimate times the square root of the number of seeds.
        freedoms: Degrees of freedom for each seed beyond the first: 1 for pairs, up to the number of cells otherwise.
    """
    scale, freedom = np.array(scales, dtype=np.float64), np.array(freedoms, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        # what a known spread would take: t's quantiles are larger, so that fewer cannot do, and little more is needed
        seeds = np.maximum(np.ceil((noncentrality(np.inf) * scale / effect) ** 2), 2)
    seeds = np.where((scale > 0) & (freedom > 0) & (seeds < MOST_SEEDS), seeds, np.nan)
    lacking = ~np.isnan(seeds)
    while lacking.any():
        n = seeds[lacking]
        lacking[lacking] = scale[lacking] / np.sqrt(n) * noncentrality(freedom[lacking] * (n - 1)) > abs(effect)
        seeds[lacking] += 1
    return seeds


def in_single_run_sd(n: int, primary: Primary) -> dict[str, float]:
    """Detectable effects of n seeds in standard deviations of a single run, for each of `SINGLE_RUN`; NaN for one."""
    return {
        name: scale / n**0.5 * float(noncentrality(freedom * (n - 1)))
        for name, (scale, freedom) in SINGLE_RUN[primary].items()
    }
