"""How often intervals cover the truth, and how often a claim is made that is not true: by simulation, fixed seeds."""

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
"""5 % and three standard errors of a simulated share."""
BOTH, FIRST, SECOND, NEITHER = range(4)


def cells(n: int, means: tuple[float, ...], draws: int, correlation: float = 0.5, seed: int = 0) -> np.ndarray:
    """Runs of unit sd (draws, cells, n); the same seed in two cells has the given correlation."""
    rng = np.random.default_rng(seed)
    shared, own = rng.normal(size=(draws, 1, n)), rng.normal(size=(draws, len(means), n))
    return np.array(means)[:, None] + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def contrasts(values: np.ndarray, weights: tuple[float, ...], test: str) -> Inference:
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
    if name == "difference" and test == "welch":  # the two cells alone
        found, truth = contrasts(values[:, [FIRST, NEITHER]], (1, -1), test), means[FIRST] - means[NEITHER]
    else:
        found, truth = contrasts(values, weights, test), float(np.dot(weights, means))
    assert np.mean((found.low <= truth) & (truth <= found.high)) == pytest.approx(0.95, abs=0.02)


def complementary(values: np.ndarray, test: str) -> np.ndarray:
    """Whether each draw says so."""
    over = [contrasts(values[:, [BOTH, alone]], (1, -1), test) for alone in (FIRST, SECOND)]
    return claim(intersection_union(*over)) == "supported"


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("effect", [0.0, 1.0, 20.0])
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("paired", 0.0), ("welch", 0.0)])
def test_complementary_is_not_said_where_one_effect_is_zero(
    n: int, effect: float, test: str, correlation: float
) -> None:
    assert complementary(cells(n, (effect, effect, 0, 0), MANY, correlation), test).mean() <= ALLOWED
    assert complementary(cells(n, (effect, 0, effect, 0), MANY, correlation), test).mean() <= ALLOWED


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("welch", 0.0)])
def test_neither_kind_of_interaction_is_said_of_additive_effects(n: int, test: str, correlation: float) -> None:
    found = contrasts(cells(n, (3, 1, 2, 0), MANY, correlation), INTERACTION, test)
    kinds = kind(found.value, found.p, np.nan)
    assert np.mean(kinds == "synergistic") <= ALLOWED
    assert np.mean(kinds != "undetermined") <= ALLOWED


@pytest.mark.parametrize("n", SEEDS)
@pytest.mark.parametrize("truth", [0.5, -0.5, 3.0])
@pytest.mark.parametrize(("test", "correlation"), [("paired", 0.5), ("welch", 0.0)])
def test_additive_is_not_said_at_the_margin(n: int, truth: float, test: str, correlation: float) -> None:
    found = contrasts(cells(n, (3 + truth, 1, 2, 0), MANY, correlation), INTERACTION, test)
    p = equivalence(found, abs(truth))
    assert np.mean(p < 0.05) <= ALLOWED
    assert np.mean(kind(found.value, found.p, p) == "additive") <= ALLOWED


@pytest.mark.parametrize("test", ["paired", "welch"])
def test_each_claim_is_made_where_it_is_true_and_there_are_seeds_enough(test: str) -> None:
    values = cells(10, (9, 3, 3, 0), 500, 0)
    found = contrasts(values, INTERACTION, test)
    assert complementary(values, test).mean() > 0.99
    assert np.mean(kind(found.value, found.p, np.nan) == "synergistic") > 0.95
    assert np.mean(kind(found.value, found.p, np.nan, sign=-1) == "sub-additive") > 0.95
    additive = contrasts(cells(10, (6, 3, 3, 0), 500, 0), INTERACTION, test)
    assert np.mean(kind(additive.value, additive.p, equivalence(additive, 3.0)) == "additive") > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("n", SEEDS)
def test_of_two_interactions_none_is_found_after_holm(n: int) -> None:
    draws = 300
    values = cells(n, (3, 1, 2, 0, 5, 3), draws)
    p = np.stack(
        [
            contrasts(values[:, corner], INTERACTION, "paired").p
            for corner in ([BOTH, FIRST, SECOND, NEITHER], [4, 5, SECOND, NEITHER])
        ],
        axis=1,
    )
    said = [pair for pair in p if pair.min() < 0.05]  # no other can be below 5 % after a correction
    found = sum(holm(pair).min() < 0.05 for pair in said)
    assert found < len(said)
    assert found / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def nested_rows(rng: np.random.Generator, backbones: int = 3, probes: int = 5) -> pl.DataFrame:
    """Two cells without any difference; probe seeds vary half as much as backbones."""
    rows = [
        (gate, seed, probe, base + rng.normal(0, 0.5))
        for gate in ("none", "headwise")
        for seed in range(backbones)
        for base in [rng.normal()]
        for probe in range(probes)
    ]
    return pl.DataFrame(rows, schema=["gate", "seed", "probe", "acc"], orient="row")


def test_pooled_probe_seeds_find_what_is_not_there_and_averaged_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    draws, backbones, probes = 4000, 3, 5
    pair = [rng.normal(size=(draws, backbones, 1)) + rng.normal(0, 0.5, (draws, backbones, probes)) for _ in range(2)]
    pooled = inference(*unpaired([cell.reshape(draws, -1) for cell in pair], (1, -1)))
    averaged = inference(*unpaired([cell.mean(axis=2) for cell in pair], (1, -1)))
    assert np.mean(pooled.p < 0.05) > 0.3
    assert np.mean(averaged.p < 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_the_command_averages_probe_seeds() -> None:
    rows = nested_rows(np.random.default_rng(1))
    found = compare(rows, metric="acc", factors=["gate"], nested="probe", primary="welch")
    averaged = compare(
        rows.group_by("gate", "seed").agg(pl.col("acc").mean()), metric="acc", factors=["gate"], primary="welch"
    )
    assert found.differences[0].welch.p == pytest.approx(averaged.differences[0].welch.p)
    assert [cell.n for cell in found.cells] == [3, 3]
    assert any("5 values per run are averaged" in note for note in found.notes)


@pytest.mark.parametrize(("n", "of_images"), [(3, 0.5), (5, 3.0), (5, 30.0)])
def test_intervals_over_seeds_and_images_cover_the_truth(n: int, of_images: float) -> None:
    rng, draws, images = np.random.default_rng(0), 300, 40
    covered = 0
    for _ in range(draws):
        shared = rng.normal(0, of_images, images)  # what the cell changes on these images, whatever the seed
        values = rng.normal(0, 0.5, (n, 1)) + shared + rng.normal(size=(n, images))
        value, se, df = bootstrap([values.mean(axis=1)], [resample_images(values, 300)], [1], same_seeds=True)
        found = inference(value, se, df)
        covered += bool(found.low <= 0 <= found.high)
    assert covered / draws >= 0.95 - 3 * np.sqrt(0.05 * 0.95 / draws)


@pytest.mark.slow
@pytest.mark.parametrize("primary", ["paired", "welch"])
def test_the_command_says_what_was_simulated(primary: str) -> None:
    values = cells(5, (3.2, 1, 2, 0), 10)
    simulated = contrasts(values, INTERACTION, primary)
    spoken = complementary(values, primary)
    kinds = kind(simulated.value, simulated.p, equivalence(simulated, 2.5))
    corners = [("headwise", 4), ("headwise", 0), ("none", 4), ("none", 0)]
    for place, draw in enumerate(values):
        rows = [
            (gate, registers, seed, value)
            for (gate, registers), cell in zip(corners, draw, strict=True)
            for seed, value in enumerate(cell)
        ]
        table = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
        (found,) = compare(table, metric="acc", factors=["gate", "registers"], primary=primary, margin=2.5).combinations
        assert found.interaction.low == pytest.approx(simulated.low[place])
        assert (found.complementary == "supported") == spoken[place]
        assert found.kind == kinds[place]
