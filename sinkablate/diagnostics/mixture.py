"""A mixture of two normal distributions fitted to numbers, compared with a single one by BIC."""

from dataclasses import dataclass
from math import log, nan, pi, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
BINS = 1024
"""Number of bins in which values are counted, so that a fit takes the same time for any number of values."""
STARTS = (0.5, 0.75, 0.9, 0.97, 0.99)
"""Quantiles at which values are split into two groups to start from; the middle of their range is another start."""
MIN_RATIO = 0.1
"""Smallest ratio of the two deviations; without a limit, a component on a single value fits infinitely well."""
VALLEY_POINTS = 513
"""Number of points at which the density between the means is evaluated."""
FIRST_STEPS, STEPS = 30, 500
"""Steps of expectation maximization from every start, and the largest number from the best of them."""
TOLERANCE = 1e-8
"""The fit is finished when a step raises the mean log likelihood by less than this."""


@dataclass(frozen=True)
class Mixture:
    """Two normal components, the lower first; a single one if all values are equal."""

    weights: tuple[float, float]
    means: tuple[float, float]
    deviations: tuple[float, float]
    bic_difference: float
    """BIC of one normal distribution minus that of the mixture; above zero, two components fit better."""

    @property
    def valley(self) -> float:
        """The lowest density between the means, relative to the lower of the two at them: 1 without a valley."""
        if not all(self.weights) or not all(self.deviations):
            return 1.0
        x = np.linspace(*self.means, VALLEY_POINTS)
        parts = zip(self.weights, self.means, self.deviations, strict=True)
        density = np.sum([w * np.exp(_log_normal(x, m, s)) for w, m, s in parts], axis=0)
        return float(density.min() / min(density[0], density[-1]))

    @property
    def crossing(self) -> float:
        """The value between the means that belongs to either component with probability 1/2; NaN if there is none."""
        if not all(self.weights) or not all(self.deviations):
            return nan
        (w1, w2), (m1, m2), (s1, s2) = self.weights, self.means, self.deviations
        # log w1 N(x; m1, s1) - log w2 N(x; m2, s2) = a x^2 + b x + c
        a = 0.5 / s2**2 - 0.5 / s1**2
        b = m1 / s1**2 - m2 / s2**2
        c = 0.5 * (m2 / s2) ** 2 - 0.5 * (m1 / s1) ** 2 + log(w1 * s2 / (w2 * s1))
        roots = np.roots([a, b, c]) if a else np.array([-c / b]) if b else np.array([])
        between = [float(x.real) for x in roots if abs(x.imag) < 1e-12 and m1 < x.real < m2]
        return between[0] if len(between) == 1 else nan


def fit_mixture(values: ArrayLike) -> Mixture:
    """Fit two normal components to numbers by maximum likelihood (expectation maximization).

    The values are counted in `BINS` bins between the smallest and the largest; a bin stands at the mean of its values,
    and no deviation is smaller than the width of a bin. The result depends on nothing but the values.

    Args:
        values: Finite numbers, of any shape.
    """
    x, counts, width = _binned(np.asarray(values, np.float64).ravel())
    total = counts.sum()
    if len(x) < 2:
        return Mixture((1.0, 0.0), (float(x[0]), float(x[0])), (0.0, 0.0), -3 * log(total))
    cuts = [_quantile(x, counts, q) for q in STARTS] + [(x[0] + x[-1]) / 2]
    starts = [
        _steps(x, counts, _split(x, cut), width, FIRST_STEPS) for cut in dict.fromkeys(cuts) if x[0] <= cut < x[-1]
    ]
    likelihood, upper = max(starts, key=lambda start: start[0])
    likelihood, upper = _steps(x, counts, upper, width, STEPS)
    weights, means, deviations = _components(x, counts, upper, width)
    order = np.argsort(means)
    single = _log_normal(x, *_moments(x, counts, width))
    gain = float(total * likelihood - counts @ single)
    w, m, s = (tuple(numbers[order].tolist()) for numbers in (weights, means, deviations))
    return Mixture(w, m, s, 2 * gain - 3 * log(total))


def _binned(values: Floats) -> tuple[Floats, Floats, float]:
    """Return the mean and the number of values of every bin that has any, and the width of a bin."""
    low, width = values.min(), np.ptp(values) / BINS
    if not width:
        return values[:1], np.array([float(len(values))]), 0.0
    bins = np.minimum(((values - low) / width).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS).astype(np.float64)
    sums = np.bincount(bins, weights=values - low, minlength=BINS)
    used = counts > 0
    return low + sums[used] / counts[used], counts[used], float(width)


def _quantile(x: Floats, counts: Floats, q: float) -> float:
    return float(x[np.searchsorted(np.cumsum(counts), q * counts.sum())])


def _split(x: Floats, cut: float) -> Floats:
    """Return the share of every value in the upper component, at first 0 or 1."""
    return (x > cut).astype(np.float64)


def _steps(x: Floats, counts: Floats, upper: Floats, width: float, most: int) -> tuple[float, Floats]:
    """Repeat the steps of expectation maximization; returns the mean log likelihood and the shares."""
    before = -np.inf
    for _ in range(most):
        weights, means, deviations = _components(x, counts, upper, width)
        with np.errstate(divide="ignore"):
            joint = np.stack(
                [np.log(w) + _log_normal(x, m, s) for w, m, s in zip(weights, means, deviations, strict=True)]
            )
        total = np.logaddexp(*joint)
        upper = np.exp(joint[1] - total)
        likelihood = float(counts @ total / counts.sum())
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
    return likelihood, upper


def _components(x: Floats, counts: Floats, upper: Floats, width: float) -> tuple[Floats, Floats, Floats]:
    """Return weights, means and deviations of both components."""
    shares = np.stack([counts * (1 - upper), counts * upper])
    sums = shares.sum(1)
    moments = [
        _moments(x, share, width) if total else (float(x[0]), width) for share, total in zip(shares, sums, strict=True)
    ]
    means, deviations = np.array(moments).T
    return sums / counts.sum(), means, np.maximum(deviations, MIN_RATIO * deviations.max())


def _moments(x: Floats, counts: Floats, width: float) -> tuple[float, float]:
    """Return mean and standard deviation of weighted values; the deviation is at least the width of a bin."""
    mean = float(np.average(x, weights=counts))
    return mean, max(width, sqrt(float(np.average((x - mean) ** 2, weights=counts))))


def _log_normal(x: Floats, mean: float, deviation: float) -> Floats:
    density: Floats = -0.5 * ((x - mean) / deviation) ** 2 - log(deviation) - 0.5 * log(2 * pi)
    return density
