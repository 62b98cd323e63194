"""Scores as multiples of exponentials, the form in which FlexAttention computes them.

A softmax kernel returns softmax(g) V and l, the log-sum-exp of g over each row. exp(l) softmax(g) V is the sum of
exp(g) V, so a score A = N^-alpha exp(g(s)) needs one call. All functions here are elementwise and have finite gradients
everywhere, because kernels multiply gradients by weights that may be zero, and zero times infinity is NaN.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_ZERO = -1e4
"""The logarithm of a weight of zero: exp(-1e4) is zero in every floating-point format. With minus infinity, a row
without any weight would be NaN."""
SMALLEST = 1e-30
"""Largest logit whose power is zero; 1/s, the gradient of log s, is finite in float32 above it."""
DEEP = -20.0
"""Below this logit, log softplus(s) is s - exp(s)/2 to float64 precision; softplus(s) itself would become zero."""


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """The form A(s) = N^-alpha exp(g(s)) of a score, or N^-alpha (exp(g(s)) - exp(g(-s))) if it is odd.

    The learned parameters of the score, if there are any, are added to s.
    """

    log: Callable[[Tensor], Tensor]
    """The function g, applied elementwise to logits of any shape."""
    alpha: float = 0.0
    """The exponent of N."""
    minus_log_n: bool = False
    """Whether g is applied to s - log N instead of s."""
    odd: bool = False
    """Whether weights change their sign with s, so that two calls are needed."""


def log_power(s: Tensor, power: int = 1) -> Tensor:
    """Return p log s where s is positive, and the logarithm of zero elsewhere: the logarithm of ReLU(s)^p."""
    positive = s > SMALLEST
    return torch.where(positive, power * torch.where(positive, s, 1.0).log(), LOG_ZERO)


def log_even_power(s: Tensor, power: int) -> Tensor:
    """Return p log |s|, the logarithm of s^p for an even p."""
    return log_power(s.abs(), power)


def log_softplus(s: Tensor) -> Tensor:
    """Return log softplus(s)."""
    deep = s < DEEP
    small = torch.where(deep, s, DEEP)
    return torch.where(deep, small - small.exp() / 2, F.softplus(torch.where(deep, 0.0, s)).log())


def exponential_power(power: int) -> Exponential | None:
    """Return the form of s^p / sqrt(N); None for p = 1, whose gradient at s = 0 is not zero."""
    if power == 1:
        return None
    odd = bool(power % 2)
    return Exponential(log=partial(log_power if odd else log_even_power, power=power), alpha=0.5, odd=odd)


POINTWISE_LOG: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": log_power,
    "relu2": partial(log_power, power=2),
    "softplus": log_softplus,
    "sigmoid": F.logsigmoid,
}
"""The logarithms of the functions h of the pointwise score. gelu and identity have none: their weights change sign, and
their gradients at s = 0 are not zero."""
