"""Pure statistics of seeds: values have the seeds on their last axis, and every axis before it is carried along.

Everything with an interval is an estimate with a standard error and t's degrees of freedom, so that one route serves
paired differences, Welch's, contrasts of four cells and the bootstrap; where scipy or statsmodels has the same test,
the tests ask for the same numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
LEVEL = 0.95
ALPHA = 1 - LEVEL
FEWEST_SIGN_FLIPS = 6
"""With fewer pairs the smallest two-sided p of a sign-flip test, 2 / 2^n, is above .05."""
MOST_SIGN_FLIPS = 50
NOISE = 1e-12
"""A spread below this share of the values is rounding, not spread."""


@dataclass(frozen=True)
class Inference:
    """An estimate, its 95 % t-interval and the two-sided p of zero; all numbers, or all arrays of one shape.

    NaN in all but `value` where there is nothing to infer from: one run, or no spread.
    """

    value: Any
    se: Any
    df: Any
    low: Any
    high: Any
    p: Any

    def __getitem__(self, index: int) -> "Inference":
        """One of many, as plain numbers."""
        return Inference(*(float(getattr(self, name)[index]) for name in ("value", "se", "df", "low", "high", "p")))


def gather(parts: Sequence[Inference]) -> Inference:
    """Many as one, of arrays."""
    return Inference(
        *(
            np.array([getattr(part, name) for part in parts], dtype=np.float64)
            for name in ("value", "se", "df", "low", "high", "p")
        )
    )


def inference(value: ArrayLike, se: ArrayLike, df: ArrayLike) -> Inference:
    """Student's interval and p from a standard error; NaN where the error is zero, undefined, or has no freedom."""
    value, se, df = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (value, se, df)))
    usable = (se > NOISE * np.abs(value)) & (df > 0)
    se, df = np.where(usable, se, nan), np.where(usable, df, nan)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * se
    return Inference(value, se, df, value - half, value + half, 2 * stats.t.sf(np.abs(value / se), df))


def spread(values: Floats, size: float = 0.0) -> Floats:
    """Sample standard deviation over the last axis; NaN of one value, zero where there is only rounding.

    Args:
        values: (…, n).
        size: Of the numbers that the values were computed from, if that is more than their own: differences of
            equal numbers are rounding too.
    """
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], nan)
    sd = values.std(axis=-1, ddof=1)
    return np.where(sd > NOISE * np.maximum(np.abs(values).max(axis=-1), size), sd, 0.0)


def moments(values: Floats, size: float = 0.0) -> tuple[Floats, Floats, float]:
    """Mean, standard error and degrees of freedom of the mean, over the last axis; NaN mean of nothing."""
    n = values.shape[-1]
    if n == 0:
        return np.full(values.shape[:-1], nan), np.full(values.shape[:-1], nan), nan
    return values.mean(axis=-1), spread(values, size) / np.sqrt(n), n - 1.0


def paired(contrasts: Floats, size: float = 0.0) -> tuple[Floats, Floats, float]:
    """Estimate, standard error and degrees of freedom of contrasts (…, n) taken seed by seed of values of a size."""
    return moments(contrasts, size)


def unpaired(cells: Sequence[Floats], weights: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """The same of a weighted sum of independent cells of unequal variance; two cells with 1 and -1 are Welch's test.

    df = (sum v_i)^2 / sum v_i^2 / (n_i - 1) with v_i = w_i^2 s_i^2 / n_i (Welch 1947, Satterthwaite 1946).

    Args:
        cells: Values of each cell (…, n_i).
        weights: One for each cell.
    """
    return combined([moments(cell) for cell in cells], weights)


def combined(parts: Sequence[tuple[Any, Any, Any]], weights: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """`unpaired` from the moments of each cell."""
    value = np.sum([w * mean for w, (mean, _, _) in zip(weights, parts, strict=True)], axis=0)
    variances = [(w * se) ** 2 for w, (_, se, _) in zip(weights, parts, strict=True)]
    total = np.sum(variances, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = total**2 / np.sum([v**2 / d for v, (_, _, d) in zip(variances, parts, strict=True)], axis=0)
    return value, np.sqrt(total), df


def stack(parts: Sequence[tuple[Any, Any, Any]]) -> Inference:
    """Inference on many (estimate, standard error, degrees of freedom) at once."""
    return inference(*np.array(parts, dtype=np.float64).reshape(-1, 3).T)


def equivalence(estimate: Inference, margin: float) -> Any:
    """p of two one-sided t-tests that the truth lies outside (-margin, margin) (Schuirmann 1987)."""
    above = stats.t.sf((estimate.value + margin) / estimate.se, estimate.df)
    below = stats.t.cdf((estimate.value - margin) / estimate.se, estimate.df)
    return np.maximum(above, below)


def hedges(cell: Floats, baseline: Floats) -> float:
    """Hedges' g of two samples (n,): difference in pooled sample sd, freed of small-sample bias; NaN if undefined."""
    from statsmodels.stats.meta_analysis import effectsize_smd

    sizes = len(cell), len(baseline)
    if min(sizes) < 2 or not spread(cell) + spread(baseline) > 0:
        return nan
    g, _ = effectsize_smd(cell.mean(), spread(cell), sizes[0], baseline.mean(), spread(baseline), sizes[1])
    return float(g)


def correlation(cell: Floats, baseline: Floats) -> float:
    """Pearson's r of pairs (n,); NaN under three pairs, where it is always 1 or -1, or without spread."""
    if len(cell) < 3 or not spread(cell) * spread(baseline) > 0:
        return nan
    return float(np.corrcoef(cell, baseline)[0, 1])


def sign_flip(contrasts: Floats) -> float:
    """p of the mean of contrasts (n,) when every sign could be the other: exact up to n = 13, then 999 random flips.

    NaN under six contrasts, where no p can be below .05, and above fifty, where a t-test asks for no normal values.
    """
    if not FEWEST_SIGN_FLIPS <= len(contrasts) <= MOST_SIGN_FLIPS:
        return nan
    resamples = 2**13 if len(contrasts) <= 13 else 999
    found = stats.permutation_test(
        (contrasts,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(0),
    )
    return float(found.pvalue)


def fisher(diverged: int, runs: int, base_diverged: int, base_runs: int) -> float:
    """Fisher's exact two-sided p that a cell and the baseline diverge equally often."""
    table = [[diverged, runs - diverged], [base_diverged, base_runs - base_diverged]]
    return float(stats.fisher_exact(table).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """p-values after Holm's step-down correction (1979); an undefined one stays so and is not counted."""
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(p_values, dtype=np.float64)
    defined = ~np.isnan(given)
    corrected = np.full(given.shape, nan)
    if defined.any():
        corrected[defined] = multipletests(given[defined], method="holm")[1]
    return corrected


def resample_images(values: Floats, draws: int = 1000) -> Floats:
    """Mean of every run over images drawn with replacement, one draw for all: (runs, images) to (draws, runs)."""
    rng, images = np.random.default_rng(0), values.shape[1]
    counts = (np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(draws))
    return np.stack([values @ count / images for count in counts])


def bootstrap(
    cells: Sequence[Floats], drawn: Sequence[Floats], weights: Sequence[float], *, same_seeds: bool
) -> tuple[float, float, float]:
    """A weighted sum of cells' means where seeds and images are both resampled: estimate, error, freedom.

    The bootstrap's standard error is scaled by sqrt(n / (n - 1)) for the fewest seeds n of a cell, and t's quantile has
    n - 1 degrees of freedom: a few seeds resampled know too little of their spread (Hesterberg 2015), and where images
    do not vary this is the t-interval over seeds.

    Args:
        cells: Values of each cell (n_i,), means over all images.
        drawn: The same over each draw of images (draws, n_i), from `resample_images`.
        weights: One for each cell.
        same_seeds: The cells have the same seeds in the same order, and they are drawn together.
    """
    fewest = min(len(cell) for cell in cells)
    value = float(sum(w * cell.mean() if cell.size else nan for w, cell in zip(weights, cells, strict=True)))
    if fewest < 2:
        return value, nan, nan
    rng = np.random.default_rng(1)
    total: Any = 0.0
    picked: Any = None
    for w, runs in zip(weights, drawn, strict=True):
        if picked is None or not same_seeds:
            picked = rng.multinomial(runs.shape[1], np.full(runs.shape[1], 1 / runs.shape[1]), size=len(runs))
        total = total + w * (picked * runs).sum(axis=1) / runs.shape[1]
    return value, float(np.std(total) * np.sqrt(fewest / (fewest - 1))), fewest - 1.0
