"""Simulations with fixed seeds: coverage of the intervals, and rate of false claims."""

import numpy as np
import polars as pl
import pytest

from sinkablate.compare.analysis import compare
from sinkablate.compare.factorial import INTERACTION, claim, intersection_union, kind
from sinkablate.compare.statistics import (
    Inference,
    bootstrap,
    equivalence,
    holm,
    inference,
    paired,
    resample_images,
    unpaired,
)

pytestmark = pytest.mark.heavy
SEEDS = (3, 5, 10)
MANY = 20_000
ALLOWED = 0.05 + 3 * np.sqrt(0.05 * 0.95 / MANY)
"""A rate of 5 % plus three standard errors of its simulation."""
BOTH, FIRST, SECOND, NEITHER = range(4)


def cells(n: int, means: tuple[float, ...], draws: int, correlation: float = 0.5, seed: int = 0) -> np.ndarray:
    """Runs with unit sd (draws, cells, n); equal seeds in two cells have the given correlation."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(draws, 1, n)), rng.normal(size=(draws, len(means), n))
    return np.array(means)[:, None] + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def contrasts(values: np.ndarray, weights: tuple[float, ...], test: str) -> Inference:
    """Inference for a contrast of the cells, for every draw."""
    if test == "paired":
        return inference(*paired(np.einsum("c,dcn->dn", weights, values)))
    return inference(*unpaired(list(np.moveaxis(values, 1, 0)), weights))


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize(
    ("name", "test", "weights", "correlation"),
    [
        ("mean", "paired", (0, 0, 0, 1), 0.5),
        ("difference", "paired", (0, 1, 0, -1), 0.5),
        ("difference", "welch", (0, 1, 0, -1), 0),
        ("interaction", "paired", INTERACTION, 0.5),
        ("interaction", "welch", INTERACTION, 0),
    ],
)
def test_intervals_cover_the_truth(
    n: int, name: str, test: str, weights: tuple[float, ...], correlation: float
) -> None:
    means = (0.7, 0.2, 1.1, 0.3)
    values = cells(n, means, 2000, correlation)
    if name == "difference" and test == "welch":  # only the two cells
        result, truth = contrasts(values[:, [FIRST, NEITHER]], (1, -1), test), means[FIRST] - means[NEITHER]
    else:
        result, truth = contrasts(values, weights, test), float(np.dot(weights, means))
    assert np.mean((result.low <= truth) & (truth <= result.high)) == pytest.approx(0.95, abs=0.02)


def complementary(values: np.ndarray, test: str) -> np.ndarray:
    """Whether both mechanisms together are claimed to be complementary, for every draw."""
    over = [contrasts(values[:, [BOTH, alone]], (1, -1), test) for alone in (FIRST, SECOND)]
    return claim(intersection_union(*over)) == "supported"


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("effect", [0.0, 1.0, 20.0])
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("paired", 0.0), ("welch", 0.0)])
def test_complementary_is_rarely_claimed_if_one_effect_is_zero(
    n: int, effect: float, test: str, correlation: float
) -> None:
    assert complementary(cells(n, (effect, effect, 0, 0), MANY, correlation), test).mean() <= ALLOWED
    assert complementary(cells(n, (effect, 0, effect, 0), MANY, correlation), test).mean() <= ALLOWED


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("welch", 0.0)])
def test_an_interaction_is_rarely_claimed_for_additive_effects(n: int, test: str, correlation: float) -> None:
    result = contrasts(cells(n, (3, 1, 2, 0), MANY, correlation), INTERACTION, test)
    kinds = kind(result.value, result.p, np.nan)
    assert np.mean(kinds == "synergistic") <= ALLOWED
    assert np.mean(kinds != "undetermined") <= ALLOWED


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("truth", [0.5, -0.5, 3.0])
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("welch", 0.0)])
def test_additive_is_rarely_claimed_at_the_margin(n: int, truth: float, test: str, correlation: float) -> None:
    result = contrasts(cells(n, (3 + truth, 1, 2, 0), MANY, correlation), INTERACTION, test)
    p = equivalence(result, abs(truth))
    assert np.mean(p < 0.05) <= ALLOWED
    assert np.mean(kind(result.value, result.p, p) == "additive") <= ALLOWED


@pytest.mark.parametrize("test", ["paired", "welch"])
def test_true_claims_are_made_with_enough_seeds(test: str) -> None:
    values = cells(10, (9, 3, 3, 0), 500, 0)
    result = contrasts(values, INTERACTION, test)
    assert complementary(values, test).mean() > 0.99
    assert np.mean(kind(result.value, result.p, np.nan) == "synergistic") > 0.95
    assert np.mean(kind(result.value, result.p, np.nan, sign=-1) == "sub-additive") > 0.95
    additive = contrasts(cells(10, (6, 3, 3, 0), 500, 0), INTERACTION, test)
    assert np.mean(kind(additive.value, additive.p, equivalence(additive, 3.0)) == "additive") > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n", SEEDS)
def test_holm_limits_the_false_claims_for_two_interactions(n: int) -> None:
    draws = 300
    values = cells(n, (3, 1, 2, 0, 5, 3), draws)
    p = np.stack(
        [
            contrasts(values[:, corner], INTERACTION, "paired").p
            for corner in ([BOTH, FIRST, SECOND, NEITHER], [4, 5, SECOND, NEITHER])
        ],
        axis=1,
    )
    uncorrected = [pair for pair in p if pair.min() < 0.05]  # a correction cannot reduce the others below 5 %
    claims = sum(holm(pair).min() < 0.05 for pair in uncorrected)
    assert claims < len(uncorrected)
    assert claims / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def nested_rows(rng: np.random.Generator, backbones: int = 3, probes: int = 5) -> pl.DataFrame:
    """Two cells without a difference, in which probe seeds vary half as much as backbones."""
    rows = [
        (gate, seed, probe, base + rng.normal(0, 0.5))
        for gate in ("none", "headwise")
        for seed in range(backbones)
        for base in [rng.normal()]
        for probe in range(probes)
    ]
    return pl.DataFrame(rows, schema=["gate", "seed", "probe", "acc"], orient="row")


def test_pooled_probe_seeds_give_false_claims_and_averaged_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    draws, backbones, probes = 4000, 3, 5
    pair = [rng.normal(size=(draws, backbones, 1)) + rng.normal(0, 0.5, (draws, backbones, probes)) for _ in range(2)]
    pooled = inference(*unpaired([cell.reshape(draws, -1) for cell in pair], (1, -1)))
    averaged = inference(*unpaired([cell.mean(axis=2) for cell in pair], (1, -1)))
    assert np.mean(pooled.p < 0.05) > 0.3
    assert np.mean(averaged.p < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_compare_averages_probe_seeds() -> None:
    rows = nested_rows(np.random.default_rng(1))
    result = compare(rows, metric="acc", factors=["gate"], nested="probe", primary="welch")
    averaged = compare(
        rows.group_by("gate", "seed").agg(pl.col("acc").mean()), metric="acc", factors=["gate"], primary="welch"
    )
    assert result.differences[0].welch.p == pytest.approx(averaged.differences[0].welch.p)
    assert [cell.n for cell in result.cells] == [3, 3]
    assert any("5 values per run are averaged" in note for note in result.notes)


@pytest.mark.parametrize(("n", "of_images"), [(3, 0.5), (5, 3.0), (5, 30.0)])
def test_intervals_over_seeds_and_images_cover_the_truth(n: int, of_images: float) -> None:
    rng, draws, images = np.random.default_rng(0), 300, 40
    covered = 0
    for _ in range(draws):
        shared = rng.normal(0, of_images, images)  # effect of the cell on each image, equal for all seeds
        values = rng.normal(0, 0.5, (n, 1)) + shared + rng.normal(size=(n, images))
        value, se, df = bootstrap([values.mean(axis=1)], [resample_images(values, 300)], [1], same_seeds=True)
        result = inference(value, se, df)
        covered += bool(result.low <= 0 <= result.high)
    assert covered / draws >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.slow
@pytest.mark.parametrize("primary", ["paired", "welch"])
def test_compare_agrees_with_the_simulation(primary: str) -> None:
    values = cells(5, (3.2, 1, 2, 0), 10)
    simulated = contrasts(values, INTERACTION, primary)
    claimed = complementary(values, primary)
    kinds = kind(simulated.value, simulated.p, equivalence(simulated, 2.5))
    corners = [("headwise", 4), ("headwise", 0), ("none", 4), ("none", 0)]
    for index, draw in enumerate(values):
        rows = [
            (gate, registers, seed, value)
            for (gate, registers), cell in zip(corners, draw, strict=True)
            for seed, value in enumerate(cell)
        ]
        table = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
        (combination,) = compare(
            table, metric="acc", factors=["gate", "registers"], primary=primary, margin=2.5
        ).combinations
        assert combination.interaction.low == pytest.approx(simulated.low[index])
        assert (combination.complementary == "supported") == claimed[index]
        assert combination.kind == kinds[index]
