"""Score functions: how scaled logits become attention weights.

Axis letters: B images, H heads, N queries, M key columns (N, or N + 1 with a sink's column last).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.attention.exponential import POINTWISE_LOG, Exponential, exponential_power, log_power
from sinkablate.config import AttentionConfig
from sinkablate.config.mechanisms import register_score_name


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score function, and what measurements need to know about its weights."""

    weights: Callable[..., Tensor]
    """Maps scaled logits q·k / sqrt(d) (B, H, N, M) to weights of the same shape and dtype. The learned parameters
    are passed as keyword arguments by name."""
    parameters: tuple[str, ...] = ()
    """Names of learned parameters, each one number per head (H,), which starts at zero."""
    is_softmax: bool = False
    """Whether the weights are the plain softmax of the logits, so fused kernels compute them."""
    rows_sum_to_one: bool = False
    """Whether weights count as shares of a row. Weights of other scores are divided by the row's sum of absolute values
    before the event rules are applied."""
    rows_at_most_one: bool = False
    """Whether no row sums to more than one, so the rest of a row is what no token received."""
    takes_null: bool = False
    """Whether part of a row can go to no token even without a sink."""
    accepts_sink: bool = False
    """Whether the score can be combined with a sink column."""
    exponential: Exponential | None = None
    """The same weights as multiples of exponentials, for FlexAttention; None if they have no such form."""


def clipped_softmax(s: Tensor, zeta: float, alpha: float) -> Tensor:
    """Return clip((zeta - gamma) softmax(s) + gamma, 0, 1) with gamma = -alpha / N (arXiv 2306.12929, eq. 4).

    gamma shrinks with N, because a constant gamma sets every weight of a uniform row to zero once N > zeta / |gamma|.

    Args:
        s: Logits (..., N, N).
        zeta: Upper stretch, at least 1; above 1, a row may sum to more than one.
        alpha: Lower stretch times N, at least 0.
    """
    gamma = -alpha / s.shape[-1]
    return ((zeta - gamma) * s.softmax(dim=-1) + gamma).clamp(0, 1)


def relu(s: Tensor) -> Tensor:
    """Return ReLU(s) / N."""
    return F.relu(s) / s.shape[-1]


def squared_relu(s: Tensor) -> Tensor:
    """Return ReLU(s)²."""
    return F.relu(s).square()


def identity(s: Tensor) -> Tensor:
    """Return the logits themselves."""
    return s


POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu2": squared_relu,
    "gelu": F.gelu,
    "softplus": F.softplus,
    "identity": identity,
    "sigmoid": torch.sigmoid,
}
"""The functions h of the pointwise score."""


def pointwise(s: Tensor, function: str, alpha: float) -> Tensor:
    """Return N^-alpha h(s), where h is one of `POINTWISE`."""
    return POINTWISE[function](s) * s.shape[-1] ** -alpha


def polynomial(s: Tensor, power: int) -> Tensor:
    """Return s^p / sqrt(N), elementwise; an odd power keeps signs."""
    return s.pow(power) * s.shape[-1] ** -0.5


def sigmoid(s: Tensor, score_bias: Tensor | None = None) -> Tensor:
    """Return sigmoid(s + b) with b = -log N, plus a learned offset per head (H,) if one is given."""
    offset = 0.0 if score_bias is None else score_bias[:, None, None].to(s.dtype)
    return torch.sigmoid(s + (offset - math.log(s.shape[-1])))


def _sigmoid(config: AttentionConfig) -> Score:
    return Score(
        weights=sigmoid,
        parameters=("score_bias",) if config.sigmoid_bias == "learned" else (),
        exponential=Exponential(log=F.logsigmoid, minus_log_n=True),
    )


def _pointwise(config: AttentionConfig) -> Score:
    function, alpha = config.pointwise_function, config.pointwise_alpha
    log = POINTWISE_LOG.get(function)
    return Score(
        weights=partial(pointwise, function=function, alpha=alpha),
        exponential=None if log is None else Exponential(log=log, alpha=alpha),
    )


def _polynomial(config: AttentionConfig) -> Score:
    power = config.polynomial_power
    return Score(weights=partial(polynomial, power=power), exponential=exponential_power(power))


def _clipped_softmax(config: AttentionConfig) -> Score:
    return Score(
        weights=partial(clipped_softmax, zeta=config.clip_zeta, alpha=config.clip_alpha),
        rows_sum_to_one=True,
        rows_at_most_one=config.clip_zeta == 1,
        takes_null=True,
    )


SOFTMAX = Score(
    weights=partial(torch.softmax, dim=-1),
    is_softmax=True,
    rows_sum_to_one=True,
    rows_at_most_one=True,
    accepts_sink=True,
)

SCORES: dict[str, Callable[[AttentionConfig], Score]] = {
    "softmax": lambda _: SOFTMAX,
    "clipped_softmax": _clipped_softmax,
    "relu": lambda _: Score(weights=relu, exponential=Exponential(log=log_power, alpha=1.0)),
    "pointwise": _pointwise,
    "polynomial": _polynomial,
    "sigmoid": _sigmoid,
}
"""The score of each value of `attention.score`, made from the other keys of its configuration."""


def register_score(name: str, score: Score) -> None:
    """Make a score function available as `attention.score=<name>`, in this process.

    Raises:
        UserError: A score of this name already exists.
    """
    register_score_name(name, accepts_sink=score.accepts_sink)
    SCORES[name] = lambda _: score
