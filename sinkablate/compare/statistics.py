"""Statistics over seeds, as pure functions: seeds are on the last axis of all values, other axes are batch axes.

Everything with an interval is an estimate with a standard error and the degrees of freedom of t, so the same functions
serve paired differences, Welch's test, contrasts of four cells, and the bootstrap.
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
"""With fewer pairs, the smallest two-sided p-value of a sign-flip test, 2 / 2^n, is above .05."""
MOST_SIGN_FLIPS = 50
NOISE = 1e-12
"""A standard deviation below this fraction of the values is rounding."""


@dataclass(frozen=True)
class Inference:
    """An estimate with its standard error, degrees of freedom, 95 % t-interval and two-sided p-value of zero.

    The fields are numbers, or arrays of one shape. All but `value` are NaN where nothing can be inferred, as from one
    run or without spread.
    """

    value: Any
    se: Any
    df: Any
    low: Any
    high: Any
    p: Any

    def __getitem__(self, index: int) -> "Inference":
        """Return one of many estimates, as plain numbers."""
        return Inference(*(float(getattr(self, name)[index]) for name in ("value", "se", "df", "low", "high", "p")))


def gather(parts: Sequence[Inference]) -> Inference:
    """Return many estimates as one, with arrays as fields."""
    return Inference(
        *(
            np.array([getattr(part, name) for part in parts], dtype=np.float64)
            for name in ("value", "se", "df", "low", "high", "p")
        )
    )


def inference(value: ArrayLike, se: ArrayLike, df: ArrayLike) -> Inference:
    """Compute Student's interval and p-value; NaN without degrees of freedom or a positive standard error."""
    value, se, df = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (value, se, df)))
    usable = (se > NOISE * np.abs(value)) & (df > 0)
    se, df = np.where(usable, se, nan), np.where(usable, df, nan)
    half = stats.t.ppf((1 + LEVEL) / 2, df) * se
    return Inference(value, se, df, value - half, value + half, 2 * stats.t.sf(np.abs(value / se), df))


def spread(values: Floats, size: float = 0.0) -> Floats:
    """Return the sample standard deviation over the last axis; NaN for one value, zero if there is only rounding.

    Args:
        values: (…, n).
        size: Magnitude of the numbers that the values were computed from, if it is larger than that of the values:
            differences of equal numbers are rounding, too.
    """
    if values.shape[-1] < 2:
        return np.full(values.shape[:-1], nan)
    sd = values.std(axis=-1, ddof=1)
    return np.where(sd > NOISE * np.maximum(np.abs(values).max(axis=-1), size), sd, 0.0)


def moments(values: Floats, size: float = 0.0) -> tuple[Floats, Floats, float]:
    """Return mean, standard error of the mean and degrees of freedom over the last axis; NaN without values."""
    n = values.shape[-1]
    if n == 0:
        return np.full(values.shape[:-1], nan), np.full(values.shape[:-1], nan), nan
    return values.mean(axis=-1), spread(values, size) / np.sqrt(n), n - 1.0


def paired(contrasts: Floats, size: float = 0.0) -> tuple[Floats, Floats, float]:
    """Return estimate, standard error and degrees of freedom of contrasts by seed (…, n); `size` as in `spread`."""
    return moments(contrasts, size)


def unpaired(cells: Sequence[Floats], weights: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Return estimate, standard error and degrees of freedom of a weighted sum of independent cells.

    The cells may have unequal variances: two cells with weights 1 and -1 give Welch's test.
    df = (sum v_i)^2 / sum v_i^2 / (n_i - 1) with v_i = w_i^2 s_i^2 / n_i (Welch 1947, Satterthwaite 1946).

    Args:
        cells: Values of each cell (…, n_i).
        weights: Weight of each cell.
    """
    return combined([moments(cell) for cell in cells], weights)


def combined(parts: Sequence[tuple[Any, Any, Any]], weights: Sequence[float]) -> tuple[Floats, Floats, Floats]:
    """Compute `unpaired` from the moments of each cell."""
    value = np.sum([w * mean for w, (mean, _, _) in zip(weights, parts, strict=True)], axis=0)
    variances = [(w * se) ** 2 for w, (_, se, _) in zip(weights, parts, strict=True)]
    total = np.sum(variances, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        df = total**2 / np.sum([v**2 / d for v, (_, _, d) in zip(variances, parts, strict=True)], axis=0)
    return value, np.sqrt(total), df


def stack(parts: Sequence[tuple[Any, Any, Any]]) -> Inference:
    """Compute the inference for many (estimate, standard error, degrees of freedom) at once."""
    return inference(*np.array(parts, dtype=np.float64).reshape(-1, 3).T)


def equivalence(estimate: Inference, margin: float) -> Any:
    """Return the p-value of two one-sided t-tests that the truth is outside (-margin, margin) (Schuirmann 1987)."""
    above = stats.t.sf((estimate.value + margin) / estimate.se, estimate.df)
    below = stats.t.cdf((estimate.value - margin) / estimate.se, estimate.df)
    return np.maximum(above, below)


def hedges(cell: Floats, baseline: Floats) -> float:
    """Return Hedges' g: the difference of two samples (n,) in pooled standard deviations, corrected for their size.

    NaN if it is undefined.
    """
    from statsmodels.stats.meta_analysis import effectsize_smd

    sizes = len(cell), len(baseline)
    if min(sizes) < 2 or not spread(cell) + spread(baseline) > 0:
        return nan
    g, _ = effectsize_smd(cell.mean(), spread(cell), sizes[0], baseline.mean(), spread(baseline), sizes[1])
    return float(g)


def correlation(cell: Floats, baseline: Floats) -> float:
    """Return Pearson's r of pairs (n,); NaN without spread, and below three pairs, where it is always 1 or -1."""
    if len(cell) < 3 or not spread(cell) * spread(baseline) > 0:
        return nan
    return float(np.corrcoef(cell, baseline)[0, 1])


def sign_flip(contrasts: Floats) -> float:
    """Return the p-value of the mean of contrasts (n,) under random signs: exact up to n = 13, then from 999 draws.

    NaN with fewer than 6 contrasts, where p cannot be below .05, and with more than 50, where a t-test does not need
    normally distributed values.
    """
    if not FEWEST_SIGN_FLIPS <= len(contrasts) <= MOST_SIGN_FLIPS:
        return nan
    resamples = 2**13 if len(contrasts) <= 13 else 999
    test = stats.permutation_test(
        (contrasts,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        rng=np.random.default_rng(0),
    )
    return float(test.pvalue)


def fisher(diverged: int, runs: int, base_diverged: int, base_runs: int) -> float:
    """Return Fisher's exact two-sided p-value that a cell and the baseline diverge equally often."""
    table = [[diverged, runs - diverged], [base_diverged, base_runs - base_diverged]]
    return float(stats.fisher_exact(table).pvalue)


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values after Holm's step-down correction (1979); NaN stays NaN and is not counted."""
    from statsmodels.stats.multitest import multipletests

    given = np.asarray(p_values, dtype=np.float64)
    defined = ~np.isnan(given)
    corrected = np.full(given.shape, nan)
    if defined.any():
        corrected[defined] = multipletests(given[defined], method="holm")[1]
    return corrected


def resample_images(values: Floats, draws: int = 1000) -> Floats:
    """Return the mean of every run over images drawn with replacement: (runs, images) to (draws, runs).

    All runs share each draw of images.
    """
    rng, images = np.random.default_rng(0), values.shape[1]
    counts = (np.bincount(rng.integers(0, images, images), minlength=images) for _ in range(draws))
    return np.stack([values @ count / images for count in counts])


def bootstrap(
    cells: Sequence[Floats], drawn: Sequence[Floats], weights: Sequence[float], *, same_seeds: bool
) -> tuple[float, float, float]:
    """Estimate a weighted sum of cell means by resampling both seeds and images.

    The standard error of the bootstrap is multiplied by sqrt(n / (n - 1)), where n is the smallest number of seeds of a
    cell, and t has n - 1 degrees of freedom: resampling few seeds underestimates their spread (Hesterberg 2015). Where
    images do not vary, the result is the t-interval over seeds.

    Args:
        cells: Values of each cell (n_i,), means over all images.
        drawn: The same over each draw of images (draws, n_i), from `resample_images`.
        weights: Weight of each cell.
        same_seeds: Whether the cells have the same seeds in the same order, so that these are drawn together.

    Returns:
        Estimate, standard error, degrees of freedom.
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
