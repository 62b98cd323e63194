"""What `compare` finds and notes in incomplete, unbalanced and degenerate tables."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from run_tables import CELL, SEED, as_json, compared, image_table, table
from scipy import stats

from sinkablate.compare.analysis import compare
from sinkablate.compare.correction import corrected


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda f: f.filter(~SEED), r"same values of seed \(4 to 5 each, 4 in all of them\)"),
        (lambda f: f.filter(~CELL), "1 cells have no runs: gate=headwise, registers=4"),
        (lambda f: f.filter(~(CELL & (pl.col("seed") > 0))), "one run has a value but no inference: gate=headwise"),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("nan")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 runs .* gate=headwise, registers=4, seed=2",
        ),
        (
            lambda f: f.with_columns(pl.when(SEED).then(float("inf")).otherwise("val/acc1").alias("val/acc1")),
            "missing or not finite in 1 runs",
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
def test_what_is_not_as_it_should_be_is_said(tmp_path: Path, change, note: str) -> None:
    assert re.search(f"Note: .*{note}", compared(tmp_path, change(table())).succeeded().out)


def test_one_run_a_cell_has_values_and_no_p(tmp_path: Path) -> None:
    found = as_json(compared(tmp_path, table(seeds=1), "--format=json"))
    for each in found["differences"]:
        assert each["estimate"]["value"] is not None
        assert each["estimate"]["p"] is each["p_holm"] is each["better"] is None
    assert {each["kind"] for each in found["combinations"]} == {"not estimable"}


def test_runs_that_diverge_in_one_cell_alone_are_an_outcome() -> None:
    lost = CELL & (pl.col("seed") < 8)
    frame = table(("none", "headwise"), seeds=10).with_columns(
        diverged=lost, **{"val/acc1": pl.when(lost).then(None).otherwise("val/acc1")}
    )
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    cell = found.cells[-1]
    assert (cell.runs, cell.diverged, cell.n, cell.missing) == (10, 8, 2, 0)
    assert found.differences[-1].p_diverged < 0.01
    assert any("its share of diverged runs differs (Fisher" in line for line in found.sentences)


def test_images_widen_the_interval() -> None:
    frame = image_table(5, 50)
    images = compare(frame, metric="hit", factors=["gate"], image="image")
    seeds = compare(frame.group_by("gate", "seed").agg(pl.col("hit").mean()), metric="hit", factors=["gate"])
    one, other = images.differences[0].estimate, seeds.differences[0].estimate
    assert one.value == pytest.approx(other.value)
    assert one.se > 3 * other.se
    assert any("seeds and 50 images" in note for note in images.notes)


def test_what_the_seeds_could_find_does_not_contradict_itself_where_images_vary() -> None:
    found = compare(image_table(8, 40), metric="hit", factors=["gate"], image="image", detect=0.1)
    (difference,) = found.differences
    assert (difference.seeds_needed, np.isnan(difference.p_sign_flip)) == (None, True)
    assert any("The number of seeds for a difference of 0.1 is unknown for 1 of 1" in line for line in found.sentences)


def test_an_effect_that_no_number_of_seeds_finds_is_not_passed_over() -> None:
    found = compare(table(), metric="val/acc1", factors=["gate", "registers"], detect=1e-9)
    assert any("is unknown for 5 of 5" in line for line in found.sentences)


@pytest.mark.parametrize("primary", ["paired", "welch"])
def test_rounding_is_no_spread(primary) -> None:
    """Exactly additive, the same on every seed but for the order of sums: no test of anything is made."""
    levels = {"none": 0.1, "headwise": 0.3, "elementwise": 0.7}
    rows = [
        (gate, registers, seed, sum((value, 0.2 * registers, 1.3)[:: 1 if seed % 2 else -1]))
        for gate, value in levels.items()
        for registers in (0, 4)
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
    found = compare(frame, metric="acc", factors=["gate", "registers"], primary=primary)
    assert np.isnan([each.p_holm for each in (*found.differences, *found.combinations)]).all()
    assert np.isnan([each.p_sign_flip for each in found.differences]).all()
    assert found.omnibus == ()
    assert any(
        "no test of all interactions of gate and registers together: it needs spread" in note for note in found.notes
    )


def test_the_fewest_seeds_are_those_behind_a_difference() -> None:
    apart = table().filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 2))
    said = compare(apart, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("The smallest number of pairs behind a difference is 2, which is few" in line for line in said)
    said = compare(apart, metric="val/acc1", factors=["gate", "registers"], primary="welch").sentences
    assert any("The smallest number of seeds behind a difference is 2, which is few" in line for line in said)
    lonely = apart.filter((pl.col("gate") != "headwise") | (pl.col("registers") == 0) | (pl.col("seed") > 3))
    said = compare(lonely, metric="val/acc1", factors=["gate", "registers"]).sentences
    assert any("is 1: nothing can be inferred from it" in line for line in said)
    assert not any("is 5, which is few" in line for line in said)


def test_what_is_not_known_of_a_run_is_no_evidence_that_it_did_not_diverge() -> None:
    rows = [("none", seed, 1.0 + 0.01 * seed, False) for seed in range(10)]
    rows += [("headwise", seed, None if seed < 8 else 1.2 + 0.01 * seed**2, seed < 4) for seed in range(10)]
    frame = pl.DataFrame(rows, schema=["gate", "seed", "acc", "diverged"], orient="row")
    found = compare(frame, metric="acc", factors=["gate"])
    (difference,) = found.differences
    assert difference.p_diverged == pytest.approx(stats.fisher_exact([[4, 2], [0, 10]]).pvalue)
    assert any("(2 of 6 and 10 of 10)" in line for line in found.sentences)
    several = corrected([found, replace(found, metric="again")])
    assert several[1].differences[0].p_diverged == difference.p_diverged


def test_a_baseline_that_always_diverges_is_an_outcome() -> None:
    base = (pl.col("gate") == "none") & (pl.col("registers") == 0)
    frame = table(seeds=6).with_columns(diverged=base, **{"val/acc1": pl.when(base).then(None).otherwise("val/acc1")})
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"])
    assert found.cells[0].n == 0
    assert all(each.p_diverged < 0.05 and np.isnan(each.p_holm) for each in found.differences)


def test_the_family_counts_the_tests_that_were_made() -> None:
    one = (pl.col("gate") == "headwise") & (pl.col("seed") > 0)
    found = compare(table().filter(~one), metric="val/acc1", factors=["gate", "registers"], margin=0.01)
    assert "Holm over 3 of 5 differences (the others have no inference)" in found.family
    assert "1 of 2 interactions" in found.family
    assert "3 of 5 tests of equivalence" in found.family


def test_two_that_harm_are_not_praised() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (gate, registers, seed, 0.8 - 0.05 * (gate != "none" or registers > 0) + rng.normal(0, 0.001))
        for gate in ("none", "headwise")
        for registers in (0, 4)
        for seed in range(6)
    ]
    frame = pl.DataFrame(rows, schema=["gate", "registers", "seed", "acc"], orient="row")
    found = compare(frame, metric="acc", factors=["gate", "registers"])
    assert found.combinations[0].kind == "synergistic"
    assert any("each harms, and together they harm less than the sum" in line for line in found.sentences)


def test_probe_seeds_that_some_runs_lack_are_said() -> None:
    frame = table().join(pl.DataFrame({"probe": [0, 1, 2]}), how="cross")
    frame = frame.filter((pl.col("gate") != "headwise") | (pl.col("probe") < 2))
    found = compare(frame, metric="val/acc1", factors=["gate", "registers"], nested="probe")
    assert any("runs do not have the same values of probe" in note for note in found.notes)


def test_a_table_that_holds_itself_twice_is_said() -> None:
    twice = pl.concat([table(), table()])
    found = compare(twice, metric="val/acc1", factors=["gate", "registers"], pair_by=None, primary="welch")
    assert any("60 rows equal another row in every column" in note for note in found.notes)
