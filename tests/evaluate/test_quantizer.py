"""The arithmetic of simulated quantization against integers, float64 and PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver
from variants import noise

from sinkablate.evaluate.quantizer import (
    Range,
    Scheme,
    image_ranges,
    percentile_ranges,
    quantize,
    quantize_weight,
    scale_and_zero,
    simulate,
    simulate_weight,
    token_ranges,
)

BITS = (8, 6, 4)


def ranges(x: Tensor, granularity: str) -> Range:
    return {"static": lambda: Range(x.min(), x.max()), "dynamic": lambda: image_ranges(x)}.get(
        granularity, lambda: token_ranges(x)
    )()


def integer_product(x: Tensor, weight: Tensor, bias: Tensor, limits: Range, bits: int) -> Tensor:
    """s_x s_w sum_k q_w (q_x - z) + b with an int8 weight and 32-bit accumulation; only the scales are floats."""
    q_x, s_x, zero = quantize(x, limits, bits)
    q_w, s_w = quantize_weight(weight, bits)
    assert q_x.min() >= 0
    assert q_x.max() <= 2**bits - 1
    unsigned, signed = q_x.to(torch.uint8), q_w.to(torch.int8)
    assert unsigned.equal(q_x.to(unsigned))
    assert signed.to(q_w).equal(q_w)
    total = unsigned.int() @ signed.int().T - zero.expand(*x.shape[:2], 1).int() * signed.sum(1, dtype=torch.int32)
    assert total.dtype == torch.int32
    return total.double() * s_x.double() * s_w.double().T + bias.double()


@pytest.mark.parametrize("granularity", ["static", "dynamic", "token"])
@pytest.mark.parametrize("bits", BITS)
def test_simulation_equals_integer_arithmetic(bits: int, granularity: str) -> None:
    x, weight, bias = noise(3, 5, 64) * 4 + 1, noise(12, 64, seed=1), noise(12, seed=2)
    x[1, 2, 3] = 80  # an outlier
    limits = ranges(x, granularity)
    simulated = F.linear(simulate(x, limits, bits), simulate_weight(weight, bits), bias)
    expected = integer_product(x, weight, bias, limits, bits)
    torch.testing.assert_close(simulated.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("bits", BITS)
def test_error_is_at_most_half_a_step(bits: int) -> None:
    x = noise(4, 9, 16, dtype=torch.float64)
    limits = token_ranges(x)
    scale, _ = scale_and_zero(limits, bits)
    # The zero point is rounded, too, so that a value at an end of the range can be off by a full step.
    assert ((simulate(x, limits, bits) - x).abs() <= scale * (1 + 1e-9)).all()
    inner = x.clamp(limits.low + scale, limits.high - scale)
    assert ((simulate(inner, limits, bits) - inner).abs() <= scale / 2 * (1 + 1e-9)).all()


@pytest.mark.parametrize("bits", BITS)
def test_equals_pytorch_observers_and_fake_quantization(bits: int) -> None:
    x, weight = noise(3, 5, 64) * 4 + 1, noise(12, 64, seed=1)
    observer = MinMaxObserver(dtype=torch.quint8, quant_min=0, quant_max=2**bits - 1)
    observer(x)
    scale, zero = observer.calculate_qparams()
    limits = Range(x.min(), x.max())
    own_scale, own_zero = scale_and_zero(limits, bits)
    torch.testing.assert_close(own_scale, scale[0])
    assert own_zero == zero[0]
    expected = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, 2**bits - 1)
    assert (simulate(x, limits, bits) - expected).abs().max() <= scale * 1.001  # a tie can be rounded either way
    assert ((simulate(x, limits, bits) - expected).abs() > 1e-5).float().mean() < 0.01
    most = 2 ** (bits - 1) - 1
    channels = PerChannelMinMaxObserver(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-most, quant_max=most
    )
    channels(weight)
    # PyTorch divides by half of the number of steps, which is the same for a symmetric range.
    torch.testing.assert_close(quantize_weight(weight, bits)[1][:, 0], channels.calculate_qparams()[0])


def test_zero_is_exact_and_values_beyond_the_range_are_clipped() -> None:
    x = torch.tensor([[[0.0, -3.0, 1.0, 9.0]]])
    result = simulate(x, Range(torch.tensor(-1.0), torch.tensor(2.0)), 8)[0, 0]
    assert result[0] == 0
    torch.testing.assert_close(result, torch.tensor([0, -1.0, 1, 2]), atol=0.012, rtol=0)


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_constant_tensors_are_finite(value: float) -> None:
    x = torch.full((2, 3, 4), value)
    for granularity in ("static", "dynamic", "token"):
        torch.testing.assert_close(simulate(x, ranges(x, granularity), 8), x)
    torch.testing.assert_close(simulate_weight(x[0], 8), x[0])


def test_an_outlier_token_destroys_one_scale_and_not_one_per_token() -> None:
    x = noise(1, 50, 64, dtype=torch.float64)
    x[0, 7] *= 1000
    others = torch.arange(50) != 7

    def error(limits: Range) -> float:
        return float((simulate(x, limits, 8) - x)[0, others].norm() / x[0, others].norm())

    assert error(image_ranges(x)) > 0.9
    assert error(token_ranges(x)) < 0.01
    excluded = ~others[None]
    assert error(image_ranges(x, excluded)) == error(image_ranges(x[:, others])) < 0.02


def test_percentiles_equal_sorting() -> None:
    x = noise(3, 20, 50)
    ordered = x.flatten(1).sort(1).values
    for percentile, below in ((100.0, 1000), (99.9, 999), (99.0, 990), (50.0, 500)):
        low, high = percentile_ranges(x, percentile)
        torch.testing.assert_close(high, ordered[:, below - 1], rtol=0, atol=0)
        torch.testing.assert_close(low, ordered[:, 1000 - below], rtol=0, atol=0)


def test_names_of_schemes() -> None:
    assert Scheme(8, 8, "token").name == "w8a8_token"
    assert Scheme(4, 4, "static", 99.99).name == "w4a4_static_p99.99"
    assert Scheme(8, None).name == "w8"
    assert Scheme(None, 8, "dynamic").name == "a8_dynamic"
