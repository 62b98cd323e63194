"""Range, tails and massive activations against numpy and scipy in float64, and against closed forms."""

import numpy as np
import pytest
import torch
from scipy import stats
from variants import noise

from sinkablate.diagnostics.activations import MASSIVE_MIN, MASSIVE_RATIO, kurtosis, massive_activations, max_abs


def heavy(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Numbers with long tails, of different size in every image."""
    x = noise(*shape, dtype=torch.float64)
    return (x**3 * torch.arange(1, shape[0] + 1, dtype=torch.float64).view(-1, 1, 1)).to(dtype)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_kurtosis_over_channels_equals_scipys(dtype: torch.dtype, tolerance: float) -> None:
    x = heavy(3, 7, 40, dtype=dtype)
    expected = stats.kurtosis(x.double().numpy(), axis=-1, fisher=False).mean(-1)
    measured = kurtosis(x)
    assert measured.dtype is dtype
    np.testing.assert_allclose(measured.numpy(), expected, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("scale", "shift"), [(1e3, 0.0), (1e-3, 0.0), (-2.0, 5.0)])
def test_kurtosis_ignores_scale_and_shift(scale: float, shift: float, dtype: torch.dtype, tolerance: float) -> None:
    x = heavy(2, 5, 30, dtype=dtype)
    torch.testing.assert_close(kurtosis(scale * x + shift), kurtosis(x), rtol=tolerance, atol=0)


def test_normal_channels_have_kurtosis_three() -> None:
    assert kurtosis(noise(1, 400, 2000))[0].item() == pytest.approx(3, abs=0.02)


@pytest.mark.parametrize("width", [2, 16, 384])
def test_a_single_large_channel_has_the_kurtosis_of_an_indicator(width: int) -> None:
    x = torch.zeros(1, 4, width, dtype=torch.float64)
    x[..., 1] = 250
    p = 1 / width
    assert kurtosis(x)[0].item() == pytest.approx((1 - 3 * p + 3 * p**2) / (p * (1 - p)))  # D - 2 + 1 / (D - 1)


def test_channels_of_two_values_have_kurtosis_one() -> None:
    x = torch.tensor([-3.0, 5.0]).repeat(2, 4, 6)
    torch.testing.assert_close(kurtosis(x), torch.ones(2))


@pytest.mark.parametrize("value", [0.0, 1.0, -7.0])
def test_constant_channels_are_undefined_for_their_image_only(value: float) -> None:
    x = noise(2, 5, 8)
    x[0, 3] = value
    found = kurtosis(x)
    assert found[0].isnan()
    assert found[1].isfinite()


def test_max_abs_of_each_image() -> None:
    x = heavy(4, 9, 12)
    x[2, 5, 7] = -1e6
    assert np.array_equal(max_abs(x).numpy(), np.abs(x.numpy()).max(axis=(1, 2)))
    assert max_abs(x)[2] == 1e6
    assert max_abs(torch.zeros(2, 3, 4)).tolist() == [0, 0]


@pytest.mark.parametrize("median", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("planted", [0, 1, 5])
def test_planted_massive_activations_are_counted(median: float, planted: int) -> None:
    x = torch.full((3, 20, 10), median)
    limit = max(MASSIVE_MIN, MASSIVE_RATIO * median)
    signs = torch.tensor([1.0, -1.0]).repeat(3)[:planted]
    x[1].view(-1)[:planted] = 1.01 * limit * signs
    x[2].view(-1)[:planted] = 0.99 * limit
    assert massive_activations(x).tolist() == [0, planted, 0]


def test_a_massive_activation_exceeds_both_limits() -> None:
    x = torch.full((1, 20, 10), 0.001)
    x[0, 0, 0] = 99  # 99,000 times the median, yet below 100
    assert massive_activations(x).item() == 0
    x = torch.full((1, 20, 10), 5.0)
    x[0, 0, 0] = 4999  # far above 100, yet below 1000 medians
    assert massive_activations(x).item() == 0
    x[0, 0, 0] = 5001
    assert massive_activations(x).item() == 1


def test_a_massive_activation_is_judged_by_its_own_image() -> None:
    x = torch.stack([torch.full((20, 10), 0.1), torch.full((20, 10), 10.0)])
    x[:, 4, 4] = 150
    assert massive_activations(x).tolist() == [1, 0]


def test_massive_activations_equal_numpy() -> None:
    x = 0.2 * noise(5, 40, 30, dtype=torch.float64) ** 9
    size = np.abs(x.numpy())
    limit = np.maximum(MASSIVE_MIN, MASSIVE_RATIO * np.median(size, axis=(1, 2), keepdims=True))
    expected = (size > limit).sum(axis=(1, 2))
    assert 0 < expected.sum() < size.size / 10
    assert massive_activations(x).tolist() == expected.tolist()
