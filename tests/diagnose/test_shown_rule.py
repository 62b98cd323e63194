"""`diagnose` of a toy of one block: its block counts, and the rule is `adaptive`."""

import json
from pathlib import Path

import polars as pl
import pytest
from pages import small
from running import CONFIGS, Outcome, assert_refused, run

THRESHOLDS = ("--thresholds.routed_min", "0.02")  # low enough for an untrained head to have events


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A run of the NOP toy of a few steps, and what `fit` printed."""
    run_dir = tmp_path_factory.mktemp("toy") / "run"
    outcome = run(*small(["fit", "--config", str(CONFIGS / "toy" / "nop.yaml"), "--run_dir", str(run_dir)]))
    outcome.succeeded()
    return run_dir, outcome


def test_the_only_block_of_a_toy_counts(toy: tuple[Path, Outcome], tmp_path: Path) -> None:
    outcome = run("diagnose", "--run", toy[0], "--out", tmp_path / "out", *THRESHOLDS)
    outcome.succeeded()
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rule"] == "adaptive"
    assert summary["counted_blocks"] == "block 0"
    assert summary["counts"] == summary["first_block"]
    assert summary["counts"]["adaptive"]["events"] > 0
    assert "by rule adaptive" in summary["headline"]
    assert "register" not in summary["headline"]
    grid = pl.read_parquet(tmp_path / "out" / "sensitivity.parquet").filter(rule="adaptive", steps=0)
    assert grid["events"].item() == pytest.approx(summary["counts"]["adaptive"]["events"])


def test_a_toy_has_no_token_maps_and_those_of_an_overwritten_diagnosis_are_removed(
    toy: tuple[Path, Outcome], tmp_path: Path
) -> None:
    out, words = tmp_path / "out", ("--limit", "4", "--overwrite", "true", *THRESHOLDS)
    run("diagnose", "--run", toy[0], "--out", out, *words).succeeded()
    stale = [out / "token_maps.npz", out / "token_map_heads.parquet", out / "figures" / "token_maps.png"]
    for path in stale:
        path.touch()
    run("diagnose", "--run", toy[0], "--out", out, *words).succeeded()
    skipped = json.loads((out / "summary.json").read_text())["token_maps"]["skipped"]
    assert "does not consist of images" in skipped
    assert not any(path.exists() for path in stale)


def test_scalars_and_table_of_fit_count_the_only_block(toy: tuple[Path, Outcome]) -> None:
    summary = json.loads((toy[0] / "summary.json").read_text())
    assert summary["sink/adaptive/events"] == summary["sink/adaptive/first_block/events"]
    assert "sinks per sequence, adaptive (block 0)" in toy[1].out


def test_an_unknown_rule_is_refused_before_anything_is_measured(toy: tuple[Path, Outcome], tmp_path: Path) -> None:
    for rule in ("causall", "effective_causal"):
        outcome = run("diagnose", "--run", toy[0], "--out", tmp_path / "out", "--rule", rule)
        assert_refused(outcome, f"rule={rule}: no such rule; choose one of causal, lejepa")
        assert not (tmp_path / "out").exists()
