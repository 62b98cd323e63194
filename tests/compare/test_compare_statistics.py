"""Every statistic agrees with R, SciPy, statsmodels or a calculation by hand."""

import itertools

import numpy as np
import pytest
from references import (
    HOLM,
    PUBLISHED_POWER,
    SLEEP,
    SLEEP_HEDGES,
    SLEEP_PAIRED,
    SLEEP_WELCH,
    TEA,
    WARPBREAKS,
    WARPBREAKS_INTERACTION,
    published_seeds,
)
from scipy import stats
from statsmodels.stats.power import TTestIndPower, TTestPower
from statsmodels.stats.weightstats import CompareMeans, ttost_paired

from sinkablate.compare.factorial import INTERACTION, intersection_union, omnibus_paired, omnibus_unpaired
from sinkablate.compare.power import detectable, in_single_run_sd, noncentrality, seeds_needed
from sinkablate.compare.statistics import (
    Inference,
    bootstrap,
    correlation,
    equivalence,
    fisher,
    hedges,
    holm,
    inference,
    paired,
    resample_images,
    sign_flip,
    spread,
    unpaired,
)


def assert_agrees(result: Inference, reference: dict[str, float]) -> None:
    """Compare an inference with the output of R."""
    for name in ("value", "df", "p", "low", "high"):
        assert getattr(result, name) == pytest.approx(reference[name], rel=3e-4), name
    assert result.value / result.se == pytest.approx(reference["t"], rel=1e-4)


def test_paired_and_welch_tests_agree_with_r() -> None:
    assert_agrees(inference(*paired(SLEEP[0] - SLEEP[1])), SLEEP_PAIRED)
    assert_agrees(inference(*unpaired(SLEEP, (1, -1))), SLEEP_WELCH)


def test_the_published_gate_is_better_only_by_welch() -> None:
    base, gate = published_seeds()
    assert [round(float(x), 2) for x in (base.mean(), base.std(ddof=1), gate.mean(), gate.std(ddof=1))] == [
        69.37,
        0.07,
        69.52,
        0.04,
    ]
    welch, pairs = inference(*unpaired([gate, base], (1, -1))), inference(*paired(gate - base))
    assert [round(float(x), 2) for x in (welch.low, welch.high)] == [0.02, 0.28]
    assert [round(float(x), 2) for x in (pairs.low, pairs.high)] == [-0.07, 0.38]
    assert correlation(gate, base) < 0


def test_hedges_fisher_and_holm_agree_with_r() -> None:
    assert hedges(*SLEEP) == pytest.approx(SLEEP_HEDGES, abs=1e-6)
    assert fisher(*TEA[0]) == pytest.approx(TEA[1], abs=1e-4)
    assert holm(HOLM[0]) == pytest.approx(HOLM[1])
    assert holm([0.04, np.nan, 0.01]) == pytest.approx([0.04, np.nan, 0.02], nan_ok=True)
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).shape == (0,)


def test_two_cells_are_scipys_welch_and_leading_axes_are_carried_along() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 3, (4, 2, 6)), rng.normal(0, 1, (4, 2, 3))
    ours, theirs = inference(*unpaired([a, b], (1, -1))), stats.ttest_ind(a, b, axis=-1, equal_var=False)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.df == pytest.approx(theirs.df)
    assert np.stack([ours.low, ours.high]) == pytest.approx(np.stack(theirs.confidence_interval()))
    ours, theirs = inference(*paired(a[..., :3] - b)), stats.ttest_rel(a[..., :3], b, axis=-1)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert np.stack([ours.low, ours.high]) == pytest.approx(np.stack(theirs.confidence_interval()))


def test_equal_cells_give_the_interaction_the_degrees_of_freedom_of_all_of_them() -> None:
    base = np.array([1.0, 2.0, 4.0])
    _, se, df = unpaired([base, base + 3, base - 1, base * 1 + 9], INTERACTION)
    assert df == pytest.approx(4 * 2)
    assert se == pytest.approx(2 * base.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("margin", [0.5, 1.58, 3.0])
def test_equivalence_agrees_with_statsmodels(margin: float) -> None:
    p = equivalence(inference(*paired(SLEEP[0] - SLEEP[1])), margin)
    assert p == pytest.approx(ttost_paired(*SLEEP, -margin, margin)[0])
    p = equivalence(inference(*unpaired(SLEEP, (1, -1))), margin)
    expected = CompareMeans.from_data(*SLEEP).ttost_ind(-margin, margin, usevar="unequal")[0]
    assert p == pytest.approx(expected)


@pytest.mark.parametrize("n", [6, 10])
def test_the_sign_flip_test_agrees_with_enumeration(n: int) -> None:
    values = (SLEEP[0] - SLEEP[1] + 0.9)[:n]
    means = [abs(np.mean(values * signs)) for signs in itertools.product([1, -1], repeat=n)]
    assert sign_flip(values) == pytest.approx(np.mean(np.array(means) >= abs(values.mean()) - 1e-12))


def test_fewer_than_six_pairs_have_no_sign_flip_test() -> None:
    assert np.isnan(sign_flip(np.arange(1.0, 6)))
    assert sign_flip(np.arange(1.0, 7)) == pytest.approx(2 / 2**6)
    assert 0 < sign_flip(np.arange(-2.0, 18)) < 0.01
    assert np.isnan(sign_flip(np.arange(51.0)))


@pytest.mark.parametrize("values", [[], [1.0], [2.0, 2.0], [0.1 + 0.2, 0.3, 0.3]])
def test_without_spread_there_is_no_inference(values: list[float]) -> None:
    result = inference(*paired(np.array(values)))
    assert np.isnan([result.se, result.low, result.high, result.p]).all()
    assert np.isnan(result.value) == (not values)


@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_power_agrees_with_statsmodels(n: int) -> None:
    effect = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
    assert noncentrality(n - 1) / np.sqrt(n) == pytest.approx(effect, rel=1e-4)
    assert seeds_needed(effect * 1.001, [1.0], [1.0]) == [n]
    assert seeds_needed(effect * 0.999, [1.0], [1.0]) == [n + 1]


@pytest.mark.parametrize("n", PUBLISHED_POWER)
def test_detectable_effects_in_single_run_sd(n: int) -> None:
    assert tuple(round(x, 1) for x in in_single_run_sd(n, "paired").values()) == PUBLISHED_POWER[n]


def test_detectable_effects_without_pairs() -> None:
    sizes = in_single_run_sd(5, "welch")
    assert sizes["a difference"] == pytest.approx(TTestIndPower().solve_power(nobs1=5, alpha=0.05, power=0.8), rel=1e-4)
    assert sizes["an interaction"] == pytest.approx(float(noncentrality(16)) * 2 / 5**0.5)


def test_the_detectable_effect_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(0)
    effect = float(noncentrality(8)) * np.sqrt(2 / 5)
    a, b = rng.normal(effect, 1, (20_000, 5)), rng.normal(0, 1, (20_000, 5))
    assert np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("freedom", [1.0, 1.7, 4.0])
def test_seeds_needed_is_the_smallest_sufficient_number(freedom: float) -> None:
    """Agrees with trying every number from two upward, for large and small effects."""
    scales = np.geomspace(0.05, 30, 200)
    seeds = np.arange(2, 10_000)
    error = noncentrality(freedom * (seeds - 1)) / np.sqrt(seeds)
    by_trial = [seeds[np.argmax(scale * error <= 1.0)] for scale in scales]
    np.testing.assert_array_equal(seeds_needed(1.0, scales.tolist(), [freedom] * 200), by_trial)


def test_seeds_needed_is_nan_without_a_spread() -> None:
    assert np.isnan(seeds_needed(1.0, [0.0, float("nan"), 1.0], [1.0, 1.0, float("nan")])).all()
    assert np.isnan(seeds_needed(1e-9, [1.0], [1.0])).all()
    assert np.isnan(detectable(inference(1.0, np.nan, np.nan)))


def test_the_intersection_union_p_agrees_with_both_intervals() -> None:
    rng = np.random.default_rng(0)
    parts = [inference(*paired(rng.normal(1, 1, (3000, 4)))) for _ in range(2)]
    for sign in (1, -1):
        p = intersection_union(*parts, sign=sign)
        both = (parts[0].low > 0) & (parts[1].low > 0) if sign > 0 else (parts[0].high < 0) & (parts[1].high < 0)
        assert ((p < 0.05) == both).all()


def test_the_omnibus_test_agrees_with_analysis_of_variance_in_r() -> None:
    f, between, within, p = omnibus_unpaired(
        [np.array(x, float) for x in WARPBREAKS.values()],
        [wool for wool, _ in WARPBREAKS],
        [tension for _, tension in WARPBREAKS],
    )
    assert (round(f, 3), (between, within), round(p, 5)) == (
        WARPBREAKS_INTERACTION["f"],
        WARPBREAKS_INTERACTION["df"],
        round(WARPBREAKS_INTERACTION["p"], 5),
    )


def test_the_paired_omnibus_test_is_the_largest_t_of_all_mixtures_of_contrasts() -> None:
    contrasts = np.stack(SLEEP, axis=1)
    angles = np.linspace(0, np.pi, 100_001)
    mixtures = inference(*paired(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ contrasts.T))
    f, between, within, p = omnibus_paired(contrasts)
    assert f == pytest.approx(np.max((mixtures.value / mixtures.se) ** 2) * 8 / (2 * 9), rel=1e-6)
    assert (between, within) == (2, 8)
    assert p == pytest.approx(stats.f.sf(f, 2, 8))
    assert omnibus_paired(np.ones((2, 2))) is None
    assert omnibus_paired(np.ones((5, 2))) is None


def test_images_without_variance_give_the_interval_of_the_seeds() -> None:
    seeds = [np.repeat(cell[:, None], 30, axis=1) for cell in SLEEP]
    drawn = [resample_images(cell) for cell in seeds]
    value, se, df = bootstrap(SLEEP, drawn, (1, -1), same_seeds=True)
    assert (value, df) == (pytest.approx(-1.58), 9)
    assert se == pytest.approx(float(spread(SLEEP[0] - SLEEP[1])) / np.sqrt(10), rel=0.08)


def test_seeds_without_variance_give_the_interval_of_the_images() -> None:
    images = np.random.default_rng(0).normal(size=400)
    cells = [np.tile(images, (5, 1)), np.zeros((5, 400))]
    _, se, _ = bootstrap(
        [cell.mean(axis=1) for cell in cells], [resample_images(cell) for cell in cells], (1, -1), same_seeds=True
    )
    assert se == pytest.approx(images.std() / 20 * np.sqrt(5 / 4), rel=0.08)
