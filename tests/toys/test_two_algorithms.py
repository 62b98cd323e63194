"""Both toys learn their known solution on three seeds in a short training run, and edits distinguish their sinks."""

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from running import CONFIGS, run, summary

SEEDS = (0, 1, 2)
QUICK = {"nop": ("--data.batch_size", "64"), "broadcast": ("--trainer.max_epochs", "8")}
"""Shorter training runs: NOP with a quarter of the batch, broadcast with eight of thirty epochs."""

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The run of a task and seed, trained once."""
    root, done = tmp_path_factory.mktemp("toys"), {}

    def trained(task: str, seed: int) -> Path:
        if (task, seed) not in done:
            run_dir = done[task, seed] = root / f"{task}{seed}"
            run(
                "fit",
                "--config",
                CONFIGS / "toy" / f"{task}.yaml",
                "--seed_everything",
                str(seed),
                "--run_dir",
                run_dir,
                "--wandb.mode",
                "disabled",
                *QUICK[task],
                "--trainer.accelerator",
                "cpu",
            ).succeeded()
        return done[task, seed]

    return trained


@pytest.mark.parametrize("seed", SEEDS)
def test_a_nop_head_attends_to_a_value_near_zero(seed: int, runs: Any) -> None:
    results = summary(runs("nop", seed))
    assert results["toy/attention_nop"] >= 0.96  # 0.97 with the full batch
    assert results["toy/attention_active"] <= 0.05
    assert results["toy/value_ratio"] <= 0.03
    assert results["toy/label"] == "nop"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_broadcast_head_distributes_the_source(seed: int, runs: Any) -> None:
    results = summary(runs("broadcast", seed))
    assert results["toy/inflow_max"] >= 0.6
    assert results["toy/value_ratio"] >= 0.5
    assert results["toy/stable_rank"] <= 1.5
    assert results["toy/label"] == "broadcast"


def edited(run_dir: Path, out: Path) -> pl.DataFrame:
    run("intervene", "--run", run_dir, "--out", out, "--limit", "128", "--control_images", "16").succeeded()
    return pl.read_parquet(out / "heads.parquet")


def of(heads: pl.DataFrame, edit: str) -> dict[str, Any]:
    return heads.row(by_predicate=pl.col("edit") == edit, named=True)


def test_zeroing_a_nop_sink_has_no_effect(runs: Any, tmp_path: Path) -> None:
    heads = edited(runs("nop", 0), tmp_path / "out")
    for edit in ("zero_value", "mean_value", "donor_value", "rotated_value"):
        row = of(heads, edit)
        assert abs(row["loss_edited"] / row["loss"] - 1) < 0.02, edit
    ordinary = of(heads, "ordinary_value")
    assert ordinary["loss_edited"] > 10 * ordinary["loss"]
    assert summary(tmp_path / "out")["controls"][0]["numbers"]["nop_left"] < 0.2


def test_a_broadcast_sink_distributes_the_donors_content(runs: Any, tmp_path: Path) -> None:
    heads = edited(runs("broadcast", 0), tmp_path / "out").filter(pl.col("block") == 1)
    donor, rotated = of(heads, "donor_value"), of(heads, "rotated_value")
    assert donor["class"] == "broadcast"
    assert donor["donor_cosine"] >= 0.8
    assert donor["common_share"] > 0.9
    assert rotated["donor_cosine"] < donor["donor_cosine"] - 0.3
    assert of(heads, "zero_value")["loss_edited"] > 10 * donor["loss"]
