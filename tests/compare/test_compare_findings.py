"""Results and notes of `compare` for incomplete, unbalanced and degenerate tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from run_tables import CELL, SEED, as_json, compared, factorial_table, image_table, table
from scipy import stats

from sinkablate.compare.analysis import compare
from sinkablate.compare.correction import corrected


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda f: f.filter(~SEED), r"same values of seed \(4 to 5 each, 4 in all of them\)"),
        (lambda f: f.filter(~CELL), "1 cell has no runs: gate=headwise, registers=4"),
        (lambda f: f.filter(~(CELL & (pl.col("seed") > 0))), "a single run have no confidence interval: gate=headwise"),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("nan")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 run .* gate=headwise, registers=4, seed=2",
        ),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("inf")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 run ",
        ),
        (lambda f: f.with_columns(pl.lit(0.5).alias("val/acc1")), r"val/acc1 is constant \(0.5\)"),
        (
            lambda f: f.with_columns(SEED.alias("diverged")),
            "runs that diverged \\(1 of 5 with gate=headwise, registers=4\\)",
        ),
        (lambda f: f.filter(pl.col("registers") == 0), "registers has only the level 0"),
        (lambda f: f.with_columns(pl.col("gate").replace("none", None)), "gate has no value in 10 rows"),
    ],
)
def test_an_irregularity_is_noted(tmp_path: Path, change, note: str) -> None:
    assert re.search(f"Note: .*{note}", compared(tmp_path, change(table())).succeeded().out)


def test_one_run_per_cell_gives_values_without_p(tmp_path: Path) -> None:
    comparison = as_json(compared(tmp_path, table(seeds=1), "--format=json"))
    for difference in comparison["differences"]:
        assert difference["estimate"]["value"] is not None
        assert difference["estimate"]["p"] is difference["p_holm"] is difference["better"] is None
    assert {combination["kind"] for combination in comparison["combinations"]} == {"not estimable"}


def test_divergence_in_only_one_cell_is_a_result() -> None:
    diverged = CELL & (pl.col("seed") < 8)
    frame = table(("none", "headwise"), seeds=10).with_columns(
        diverged=diverged, **{"val/acc1": pl.when(diverged).then(None).otherwise("val/acc1")}
    )
    comparison = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    cell = comparison.cells[-1]
    assert (cell.runs, cell.diverged, cell.n, cell.missing) == (10, 8, 2, 0)
    assert comparison.differences[-1].p_diverged < 0.01
    assert any("its share of diverged runs differs (Fisher" in line for line in comparison.sentences)


def test_images_widen_the_interval() -> None:
    frame = image_table(5, 50)
    over_images = compare(frame, metric="hit", factors=["gate"], image="image")
    over_seeds = compare(frame.group_by("gate", "seed").agg(pl.col("hit").mean()), metric="hit", factors=["gate"])
    one, other = over_images.differences[0].estimate, over_seeds.differences[0].estimate
    assert one.value == pytest.approx(other.value)
    assert one.se > 3 * other.se
    assert any("seeds and 50 images" in note for note in over_images.notes)


def test_the_number_of_seeds_is_unknown_when_images_vary() -> None:
    comparison = compare(image_table(8, 40), metric="hit", factors=["gate"], image="image", detect=0.1)
    (difference,) = comparison.differences
    assert (difference.seeds_needed, np.isnan(difference.p_sign_flip)) == (None, True)
    assert any(
        "The number of seeds for a difference of 0.1 is unknown for 1 of 1" in line for line in comparison.sentences
    )


def test_an_undetectable_effect_is_reported() -> None:
    comparison = compare(table(), metric="val/acc1", factors=["gate", "registers"], detect=1e-9)
    assert any("is unknown for 5 of 5" in line for line in comparison.sentences)


@pytest.mark.parametrize("primary", ["paired", "welch"])
def test_rounding_errors_do_not_count_as_spread(primary) -> None:
    """No test is made if effects are additive and equal on all seeds, except for the order of summation."""
    levels = {"none": 0.1, "headwise": 0.3, "elementwise": 0.7}
    rows = [
        (gate, registers, seed, sum((value, 0.2 * registers, 1.3)[:: 1 if seed % 2 else -1]))
        for gate, value in levels.items()
        for registers in (0, 4)
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
    comparison = compare(frame, metric="acc", factors=["gate", "registers"], primary=primary)
    assert np.isnan([effect.p_holm for effect in (*comparison.differences, *comparison.combinations)]).all()
    assert np.isnan([difference.p_sign_flip for difference in comparison.differences]).all()
    assert comparison.omnibus == ()
    assert any(
        "no test of all interactions of gate and registers together: it needs spread" in note
        for note in comparison.notes
    )


def test_the_smallest_number_of_seeds_of_a_difference_is_reported() -> None:
    unbalanced = table().filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 2))
    sentences = compare(unbalanced, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("The smallest number of pairs behind a difference is 2, which is few" in line for line in sentences)
    sentences = compare(unbalanced, metric="val/acc1", factors=["gate", "registers"], primary="welch").sentences
    assert any("The smallest number of seeds behind a difference is 2, which is few" in line for line in sentences)
    single = unbalanced.filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 3))
    sentences = compare(single, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("is 1: nothing can be inferred from it" in line for line in sentences)
    assert not any("is 5, which is few" in line for line in sentences)


def test_a_missing_value_is_not_evidence_of_convergence() -> None:
    rows = [("none", seed, 1.0 + 0.01 * seed, False) for seed in range(10)]
    rows += [("headwise", seed, None if seed < 8 else 1.2 + 0.01 * seed**2, seed < 4) for seed in range(10)]
    frame = pl.DataFrame(rows, schema=["gate", "seed", "acc", "diverged"], orient="row")
    comparison = compare(frame, metric="acc", factors=["gate"])
    (difference,) = comparison.differences
    assert difference.p_diverged == pytest.approx(stats.fisher_exact([[4, 2], [0, 10]]).pvalue)
    assert any("(2 of 6 and 10 of 10)" in line for line in comparison.sentences)
    corrected_together = corrected([comparison, replace(comparison, metric="other")])
    assert corrected_together[1].differences[0].p_diverged == difference.p_diverged


def test_a_baseline_that_always_diverges_is_a_result() -> None:
    baseline = (pl.col("gate") == "none") & (pl.col("registers") == 0)
    frame = table(seeds=6).with_columns(
        diverged=baseline, **{"val/acc1": pl.when(baseline).then(None).otherwise("val/acc1")}
    )
    comparison = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    assert comparison.cells[0].n == 0
    assert all(difference.p_diverged < 0.05 and np.isnan(difference.p_holm) for difference in comparison.differences)


def test_the_family_counts_only_tests_that_were_made() -> None:
    lost = (pl.col("gate") == "headwise") & (pl.col("seed") > 0)
    comparison = compare(table().filter(~lost), metric="val/acc1", factors=["gate", "registers"], margin=0.01)
    assert "Holm over 3 of 5 differences (the others have no p-value)" in comparison.family
    assert "1 of 2 interactions" in comparison.family
    assert "3 of 5 tests of equivalence" in comparison.family


def test_a_combination_of_two_harmful_mechanisms_is_called_harmful() -> None:
    frame = factorial_table("acc", lambda gate, registers: 0.8 - 0.05 * (gate or registers), noise=0.001)
    comparison = compare(frame, metric="acc", factors=["gate", "registers"])
    assert comparison.combinations[0].kind == "synergistic"
    assert any("each harms, and together they harm less than the sum" in line for line in comparison.sentences)


def test_probe_seeds_that_some_runs_lack_are_noted() -> None:
    frame = table().join(pl.DataFrame({"probe": [0, 1, 2]}), how="cross")
    frame = frame.filter((pl.col("gate") != "headwise") | (pl.col("probe") < 2))
    comparison = compare(frame, metric="val/acc1", factors=["gate", "registers"], nested="probe")
    assert any("runs do not have the same values of probe" in note for note in comparison.notes)


def test_duplicate_rows_are_noted() -> None:
    twice = pl.concat([table(), table()])
    comparison = compare(twice, metric="val/acc1", factors=["gate", "registers"], pair_by=None, primary="welch")
    assert any("60 rows equal another row in every column" in note for note in comparison.notes)
