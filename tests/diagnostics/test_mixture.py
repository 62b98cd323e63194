"""The mixture of two normal components: closed forms, a direct fit in float64, and one component recognized."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import norm

from sinkablate.diagnostics.mixture import Mixture, fit_mixture


def planted(lower: int = 3000, upper: int = 150) -> np.ndarray:
    generator = np.random.default_rng(0)
    return np.concatenate([generator.normal(2.0, 0.2, lower), generator.normal(4.0, 0.4, upper)])


def log_likelihood(parameters: np.ndarray, values: np.ndarray) -> float:
    """Of the raw values under weight (logit), means and deviations (logarithms), from scipy's density."""
    share = 1 / (1 + np.exp(-parameters[0]))
    lower, upper = (norm.pdf(values, parameters[1 + k], np.exp(parameters[3 + k])) for k in (0, 1))
    return float(np.log((1 - share) * lower + share * upper).sum())


def test_the_fit_is_the_maximum_of_the_likelihood_of_the_single_values() -> None:
    values = planted()
    mixture = fit_mixture(values)
    start = np.array([-3.0, 1.8, 4.2, np.log(0.3), np.log(0.3)])
    best = minimize(lambda p: -log_likelihood(p, values), start, method="BFGS")
    share, *means = 1 / (1 + np.exp(-best.x[0])), *best.x[1:3]
    np.testing.assert_allclose(mixture.weights[1], share, rtol=1e-3)
    np.testing.assert_allclose(mixture.means, means, rtol=1e-3)
    np.testing.assert_allclose(mixture.deviations, np.exp(best.x[3:]), rtol=5e-3)
    single = norm.logpdf(values, values.mean(), values.std()).sum()
    expected = 2 * (-best.fun - single) - 3 * np.log(len(values))
    np.testing.assert_allclose(mixture.bic_difference, expected, rtol=1e-3)


def test_values_cross_where_both_components_are_equally_likely() -> None:
    mixture = fit_mixture(planted())
    lower, upper = (
        weight * norm.pdf(mixture.crossing, mean, deviation)
        for weight, mean, deviation in zip(mixture.weights, mixture.means, mixture.deviations, strict=True)
    )
    assert mixture.means[0] < mixture.crossing < mixture.means[1]
    np.testing.assert_allclose(lower, upper, rtol=1e-9)
    equal = Mixture((0.9, 0.1), (0.0, 4.0), (1.0, 1.0), 0.0)
    np.testing.assert_allclose(equal.crossing, 2 + np.log(9) / 4)  # closed form for equal deviations


def test_the_valley_is_the_lowest_density_relative_to_the_lower_peak() -> None:
    far = Mixture((0.5, 0.5), (0.0, 6.0), (1.0, 1.0), 0.0)
    density = [norm.pdf(x, 0, 1) + norm.pdf(x, 6, 1) for x in (3.0, 0.0)]
    np.testing.assert_allclose(far.valley, density[0] / density[1], rtol=1e-6)
    assert Mixture((0.5, 0.5), (0.0, 1.0), (1.0, 1.0), 0.0).valley == 1  # one mode


@pytest.mark.parametrize("seed", range(5))
def test_one_component_fits_normal_values_as_well(seed: int) -> None:
    assert fit_mixture(np.random.default_rng(seed).normal(3, 0.2, 2000)).bic_difference < 0


@pytest.mark.parametrize("draw", ["uniform", "exponential", "lognormal", "laplace"])
def test_other_shapes_with_one_mode_have_no_valley(draw: str) -> None:
    values = getattr(np.random.default_rng(0), draw)(size=5000)
    assert fit_mixture(values).valley > 0.5


def test_equal_values_are_one_component() -> None:
    mixture = fit_mixture(np.full(100, 2.5))
    assert mixture.weights == (1, 0)
    assert mixture.bic_difference < 0
    assert np.isnan(mixture.crossing)
    assert mixture.valley == 1


def test_the_order_of_the_values_does_not_matter() -> None:
    values = planted()
    one, other = fit_mixture(values), fit_mixture(values[::-1].reshape(-1, 2))
    np.testing.assert_allclose(other.means, one.means, rtol=1e-9)
    np.testing.assert_allclose(other.bic_difference, one.bic_difference, rtol=1e-9)
