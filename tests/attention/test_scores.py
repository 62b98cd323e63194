"""Every score compared with its formula, and the effect of clipping on rows."""

import math

import pytest
import torch
from torch import Tensor
from variants import noise

from sinkablate.attention.scores import SCORES, clipped_softmax
from sinkablate.config import AttentionConfig

N = 7
S = 3 * noise(2, 3, N, N, dtype=torch.float64)


def plain(score: str, s: float, row: list[float], a: AttentionConfig) -> float:
    """One weight, computed from scalars."""
    n = len(row)
    h = {
        "relu": lambda: max(s, 0.0),
        "relu2": lambda: max(s, 0.0) ** 2,
        "identity": lambda: s,
        "gelu": lambda: s * 0.5 * (1 + math.erf(s / math.sqrt(2))),
        "softplus": lambda: math.log1p(math.exp(s)),
        "sigmoid": lambda: 1 / (1 + math.exp(-s)),
    }
    softmax = math.exp(s) / sum(math.exp(r) for r in row)
    gamma = -a.clip_alpha / n
    match score:
        case "softmax":
            return softmax
        case "clipped_softmax":
            return min(1.0, max(0.0, (a.clip_zeta - gamma) * softmax + gamma))
        case "relu":
            return max(s, 0.0) / n
        case "pointwise":
            return n**-a.pointwise_alpha * h[a.pointwise_function]()
        case "polynomial":
            return math.sqrt(1 / n) * s**a.polynomial_power
    return 1 / (1 + math.exp(-(s - math.log(n))))


POINTWISE = [
    {"score": "pointwise", "pointwise_function": h, "pointwise_alpha": alpha}
    for h in ("relu", "relu2", "gelu", "softplus", "identity", "sigmoid")
    for alpha in (0.0, 0.5)
]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"score": "clipped_softmax"},
        {"score": "clipped_softmax", "clip_zeta": 1.1, "clip_alpha": 2.0},
        {"score": "relu"},
        {"score": "polynomial"},
        {"score": "polynomial", "polynomial_power": 2},
        {"score": "sigmoid"},
        *POINTWISE,
    ],
    ids=str,
)
def test_every_score_equals_its_formula(fields: dict) -> None:
    config = AttentionConfig(**fields)
    weights = SCORES[config.score](config).weights(S)
    for index in [(b, h, i, j) for b in range(2) for h in range(3) for i in range(N) for j in range(N)]:
        expected = plain(config.score, float(S[index]), S[index[:3]].tolist(), config)
        assert float(weights[index]) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_learned_sigmoid_bias_is_an_offset_from_minus_log_n_per_head() -> None:
    bias = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    config = AttentionConfig(score="sigmoid", sigmoid_bias="learned")
    expected = torch.stack([torch.sigmoid(S[:, h] - math.log(N) + bias[h]) for h in range(3)], dim=1)
    torch.testing.assert_close(SCORES["sigmoid"](config).weights(S, score_bias=bias), expected, rtol=0, atol=1e-15)


def test_clipping_with_unit_stretch_and_no_alpha_is_softmax() -> None:
    torch.testing.assert_close(clipped_softmax(S, zeta=1.0, alpha=0.0), S.softmax(-1), rtol=0, atol=1e-15)


def uniform_row(n: int, zeta: float, alpha: float) -> tuple[Tensor, Tensor]:
    s = torch.zeros(1, n, dtype=torch.float64, requires_grad=True)
    weights = clipped_softmax(s, zeta, alpha)
    (weights * torch.linspace(0, 1, n, dtype=torch.float64)).sum().backward()
    return weights, s.grad


@pytest.mark.parametrize("n", [5, 49, 197])
@pytest.mark.parametrize("zeta", [1.0, 1.2])
@pytest.mark.parametrize(("share", "alive"), [(0.5, True), (0.999, True), (1.001, False), (2.0, False)])
def test_a_uniform_row_survives_clipping_for_small_alpha(n: int, zeta: float, share: float, alive: bool) -> None:
    """(zeta - gamma) / N + gamma > 0 with gamma = -alpha / N means alpha < zeta N / (N - 1)."""
    weights, gradient = uniform_row(n, zeta, alpha=share * zeta * n / (n - 1))
    assert bool((weights > 0).all()) == bool(gradient.abs().max() > 0) == alive


def test_a_fixed_gamma_zeroes_weights_that_the_default_alpha_keeps() -> None:
    """gamma = -0.03 is alpha = 0.03 N: nothing at 17 tokens, every weight at 197."""
    assert uniform_row(17, 1.0, alpha=0.03 * 17)[0].sum() > 0.4
    assert uniform_row(197, 1.0, alpha=0.03 * 197)[0].sum() == 0
    weights, gradient = uniform_row(197, 1.0, alpha=AttentionConfig(score="clipped_softmax").clip_alpha)
    assert weights.sum() > 0.3
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("power", [1, 2, 3, 5])
def test_odd_powers_keep_signs(power: int) -> None:
    weights = SCORES["polynomial"](AttentionConfig(score="polynomial", polynomial_power=power)).weights(S)
    assert torch.equal(weights.sign(), S.sign() if power % 2 else torch.ones_like(S))


@pytest.mark.parametrize("score", ["relu", "pointwise", "polynomial", "sigmoid"])
def test_nothing_normalizes_the_rows(score: str) -> None:
    rows = SCORES[score](AttentionConfig(score=score)).weights(S).sum(-1)
    assert (rows - 1).abs().max() > 0.1
