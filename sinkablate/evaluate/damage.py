"""How far the outputs of a quantized model are from those in full precision, per image, with bootstrap intervals.

Axis letters: B images, N tokens, D model width, K classes, n images of a set.
"""

from collections.abc import Callable
from math import nan

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import bootstrap
from torch import Tensor

Floats = NDArray[np.float64]
LEVEL = 0.95
"""Coverage of the intervals."""
RESAMPLES = 2000


def divergence(full: Tensor, quantized: Tensor) -> Tensor:
    """Return KL(full || quantized) of the class probabilities in nats, from logits (B, K) -> (B,) float64."""
    p, q = full.double().log_softmax(-1), quantized.double().log_softmax(-1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(-1).clamp_min(0)


def mean_cosine(full: Tensor, quantized: Tensor) -> Tensor:
    """Return the cosine of every token with itself in full precision, averaged over tokens, (B, N, D) -> (B,)."""
    return F.cosine_similarity(full.double(), quantized.double(), dim=-1).mean(-1)


def interval(statistic: Callable[..., Floats], *samples: Floats, seed: int = 0) -> tuple[float, float]:
    """Return a percentile interval from a bootstrap over images; NaN for fewer than two images.

    Args:
        statistic: From samples (..., n) to (...), with the argument `axis`.
        samples: Numbers of the same n images, (n,) each; the images are resampled together.
        seed: Seed of the resampling.
    """
    if len(samples[0]) < 2:
        return nan, nan
    result = bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, 10**7 // len(samples[0])),
        paired=True,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(result.low), float(result.high)


def mean(values: Floats, axis: int = -1) -> Floats:
    """Return the mean over images."""
    return np.asarray(values.mean(axis=axis))


def share_removed(before: Floats, after: Floats, axis: int = -1) -> Floats:
    """Return the share of the mean damage that a change removes, 1 - mean(after) / mean(before); NaN without damage."""
    total = before.mean(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(total > 0, 1 - after.mean(axis=axis) / total, nan))
