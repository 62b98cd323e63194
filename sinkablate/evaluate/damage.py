"""How far the outputs of a quantized model are from those in full precision, per image, with bootstrap intervals.

Axis letters: B images of a batch, N tokens, D model width, K classes, C classes of pixels, n images of a set.
"""

from collections.abc import Callable, Iterator
from math import nan

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sinkablate.evaluate.miou import iou

Floats = NDArray[np.float64]
Statistic = Callable[..., Floats]
"""From the means of samples over images, (..., *shape) each, to numbers (...)."""
LEVEL = 0.95
"""Coverage of the intervals."""
RESAMPLES = 2000
_WEIGHTS = 10**7
"""Largest number of bootstrap weights that exist at a time."""


def divergence(full: Tensor, quantized: Tensor) -> Tensor:
    """Return KL(full || quantized) of the class probabilities in nats, from logits (B, K) -> (B,) float64."""
    p, q = full.double().log_softmax(-1), quantized.double().log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp_min(0)


def mean_cosine(full: Tensor, quantized: Tensor) -> Tensor:
    """Return the cosine of every token with itself in full precision, averaged over tokens, (B, N, D) -> (B,)."""
    return F.cosine_similarity(full.double(), quantized.double(), dim=-1).mean(-1)


def value_of(statistic: Statistic, *samples: Floats) -> float:
    """Return a statistic of samples of the same n images, (n, *shape) each."""
    return float(statistic(*(sample.mean(axis=0) for sample in samples)))


def interval(statistic: Statistic, *samples: Floats, seed: int = 0) -> tuple[float, float]:
    """Return a percentile interval from a bootstrap over images; NaN for fewer than two images.

    Resamples for which the statistic is undefined, such as a share of no damage, are left out.

    Args:
        statistic: What is estimated.
        samples: Numbers of the same n images, (n, *shape) each; the images are resampled together.
        seed: Seed of the resampling.
    """
    if len(samples[0]) < 2:
        return nan, nan
    parts = [
        statistic(*((weights @ sample.reshape(len(sample), -1)).reshape(-1, *sample.shape[1:]) for sample in samples))
        for weights in _weights(len(samples[0]), seed)
    ]
    values = np.concatenate(parts)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return nan, nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _weights(count: int, seed: int) -> Iterator[Floats]:
    """Yield the weight of every image in each resample, (r, n), with row sums of one; in all `RESAMPLES` rows."""
    rng, step = np.random.default_rng(seed), max(1, _WEIGHTS // count)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count) / count


def mean(means: Floats) -> Floats:
    """Return the mean over images."""
    return means


def share_removed(before: Floats, after: Floats) -> Floats:
    """Return the share of the mean damage that a change removes, 1 - after / before; NaN without damage."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(before > 0, 1 - after / before, nan))


def mean_iou(counts: Floats) -> Floats:
    """Return the mean over classes of the intersection over union, from confusion matrices (..., C, C) -> (...).

    Rows are targets. Classes that do not occur in the targets are left out.
    """
    means: Floats = iou(torch.from_numpy(counts)).nanmean(-1).numpy()
    return means


def drop_of_iou(full: Floats, quantized: Floats) -> Floats:
    """Return the difference of `mean_iou` between two confusion matrices of the same images."""
    return mean_iou(full) - mean_iou(quantized)
