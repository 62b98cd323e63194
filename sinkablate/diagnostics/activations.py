"""Range, tails and massive activations of a block's tensors, which make them hard to quantize.

Axis letters as in `view.py`.
"""

import torch
from torch import Tensor

from sinkablate.diagnostics.routing import divide

MASSIVE_MIN = 100.0
"""A massive activation is larger than this in absolute value ..."""
MASSIVE_RATIO = 1000.0
"""... and than this times the median absolute value of the same tensor (arXiv 2402.17762)."""


def max_abs(x: Tensor) -> Tensor:
    """Return the largest |x| of each image, (B, N, D) -> (B,)."""
    return x.abs().amax((-2, -1))


def kurtosis(x: Tensor) -> Tensor:
    """Return the kurtosis over the channels of every token, averaged over tokens, (B, N, D) -> (B,).

    E[(x - mean)^4] / E[(x - mean)^2]^2: 3 for normally distributed channels, D for a single large one, and NaN if the
    channels of any token are constant.
    """
    squares = (x - x.mean(-1, keepdim=True)).square()
    return divide(squares.square().mean(-1), squares.mean(-1).square()).mean(-1)


def massive_activations(x: Tensor) -> Tensor:
    """Count the entries with |x| > `MASSIVE_MIN` and > `MASSIVE_RATIO` times the image's median |x|, (B, N, D) -> (B,).

    The median is computed only for images that exceed the first limit.
    """
    counts = x.new_zeros(len(x))
    for image in torch.nonzero(max_abs(x) > MASSIVE_MIN).flatten().tolist():
        size = x[image].abs()
        counts[image] = (size > max(MASSIVE_MIN, MASSIVE_RATIO * float(size.median()))).sum()
    return counts
