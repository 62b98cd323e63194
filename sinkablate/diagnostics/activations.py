"""Range, tails and massive activations of a block's tensors, which make them hard to quantize.

Axis letters as in `view.py`.
"""

import torch
from torch import Tensor

from sinkablate.diagnostics.shares import divide, host_can_read

MASSIVE_MIN = 100.0
"""A massive activation is larger than this in absolute value ..."""
MASSIVE_RATIO = 1000.0
"""... and than this times the median absolute value of the same tensor (arXiv 2402.17762)."""


def max_abs(x: Tensor) -> Tensor:
    """Return the largest |x| of each image or matrix, (..., N, D) -> (...)."""
    return torch.maximum(x.amax((-2, -1)), -x.amin((-2, -1)))  # writes no |x|; the norm of order infinity is slower


def kurtosis(x: Tensor) -> Tensor:
    """Return the kurtosis over the channels of every token, averaged over tokens, (..., N, D) -> (...).

    E[(x - mean)^4] / E[(x - mean)^2]^2: 3 for normally distributed channels, D for a single large one, and NaN if the
    channels of any token are constant.
    """
    squares = (x - x.mean(-1, keepdim=True)).square_()
    variance = squares.mean(-1)
    return divide(squares.square_().mean(-1), variance.square()).mean(-1)


def massive_activations(x: Tensor) -> Tensor:
    """Count the entries with |x| > `MASSIVE_MIN` and > `MASSIVE_RATIO` times the image's median |x|.

    (..., N, D) -> (...). A CPU computes the median only if an image exceeds the first limit.
    """
    if host_can_read(x) and max_abs(x).amax() <= MASSIVE_MIN:
        return x.new_zeros(x.shape[:-2])
    size = x.abs().flatten(-2)
    limit = (MASSIVE_RATIO * _median(size)).clamp_min(MASSIVE_MIN)
    return (size > limit).sum(-1).to(x)


def _median(x: Tensor) -> Tensor:
    """Return the lower median over the last dimension, (..., K) -> (..., 1).

    `torch.median` also returns an index, which varies on a GPU if values are equal, so PyTorch refuses to call it where
    deterministic algorithms are required (`trainer.deterministic`).
    """
    if torch.are_deterministic_algorithms_enabled():
        return x.sort(-1).values[..., (x.shape[-1] - 1) // 2, None]
    return x.median(-1, keepdim=True).values
