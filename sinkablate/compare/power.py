"""What the seeds at hand could have found, and how many would find an effect: two-sided tests at 5 %, 80 % power."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

from sinkablate.compare.statistics import ALPHA, Inference

POWER = 0.8
MOST_SEEDS = 10_000_000
SINGLE_RUN = {"paired, no correlation": 2**0.5, "paired, correlation .5": 1.0, "interaction": 2.0}
"""Standard deviation of a contrast taken seed by seed, in those of a single run."""


def noncentrality(df: ArrayLike) -> Any:
    """The effect, in standard errors, that a t-test finds with 80 % power.

    The power on the wrong side of zero is left out; it is below 1e-5.

    Args:
        df: Degrees of freedom; NaN for those that are not positive.
    """
    freedom = np.asarray(df, dtype=np.float64)
    freedom = np.where(freedom > 0, freedom, np.nan)
    return special.nctdtrinc(freedom, 1 - POWER, stats.t.ppf(1 - ALPHA / 2, freedom))


def detectable(estimate: Inference) -> Any:
    """The smallest true effect that such an estimate finds with 80 % power, in its units; NaN without inference."""
    return estimate.se * noncentrality(estimate.df)


def seeds_needed(effect: float, scale: float, freedom: float) -> int | None:
    """The fewest seeds that find an effect with 80 % power; None where the spread is unknown.

    Args:
        effect: Its size.
        scale: Standard error of the estimate times the square root of the number of seeds.
        freedom: Degrees of freedom for each seed beyond the first: 1 for pairs, up to the number of cells otherwise.
    """
    if not (scale > 0 and freedom > 0):
        return None

    def finds(n: int) -> bool:
        return bool(scale / np.sqrt(n) * noncentrality(freedom * (n - 1)) <= abs(effect))

    low, high = 1, 2
    while not finds(high):
        low, high = high, 2 * high
        if high > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if finds(middle) else (middle, high)
    return high


def in_single_run_sd(n: int) -> dict[str, float]:
    """Detectable effects of n seeds in standard deviations of a single run, for each of `SINGLE_RUN`; NaN for one."""
    unit = float(noncentrality(n - 1)) / n**0.5
    return {name: scale * unit for name, scale in SINGLE_RUN.items()}
