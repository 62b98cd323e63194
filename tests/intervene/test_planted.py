"""On a model whose heads were planted, an intervention recovers what was planted."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from intervening import table
from planted import DEPTH, HEADS, IMAGES, PlantedTransformer, experiment, is_nop, planted, run
from variants import make

from sinkablate.config import ThresholdConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.diagnostics.rules import rules
from sinkablate.intervene.random_network import random_network

pytestmark = pytest.mark.heavy

HEADS_OF_A_LABEL = (DEPTH - 1) * HEADS // 2
"""Heads of each label in blocks >= 1; block 0 is counted separately."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An intervention on the planted model."""
    out = tmp_path_factory.mktemp("planted")
    run(experiment(out, planted(), top_first_block=16))
    return out


def control(out: Path, name: str) -> dict[str, Any]:
    summary = json.loads((out / "summary.json").read_text())
    return next(control for control in summary["controls"] if control["name"] == name)


def test_every_head_has_its_planted_label(results: Path) -> None:
    heads = table(results, "heads").filter(pl.col("edit") == "zero_value")
    assert len(heads) == DEPTH * HEADS
    for row in heads.iter_rows(named=True):
        assert row["class"] == ("nop" if is_nop(row["head"]) else "broadcast")
        assert row["class_events"] >= 0.9 * IMAGES


@pytest.mark.parametrize("edit", ["zero_value", "mean_value", "donor_value"])
def test_labels_predict_the_effects(results: Path, edit: str) -> None:
    row = table(results, "validation").row(by_predicate=pl.col("edit") == edit, named=True)
    assert row["broadcast_heads"] == row["nop_heads"] == HEADS_OF_A_LABEL
    assert row["auc"] > 0.95
    assert row["auc_low"] > 0.9
    assert row["cliffs_delta"] == pytest.approx(2 * row["auc"] - 1)
    assert row["matched_log10_ratio"] > 1
    assert row["residual_association"] > 0.7


def test_labels_gain_nothing_where_local_size_predicts_as_well(results: Path) -> None:
    row = table(results, "validation").row(by_predicate=pl.col("edit") == "zero_value", named=True)
    assert row["auc_local_within"] == pytest.approx(1)
    assert row["delta_auc"] == pytest.approx(0, abs=0.01)
    assert "no better than local size" in json.loads((results / "summary.json").read_text())["headline"]


def test_effects_of_edits_follow_the_labels(results: Path) -> None:
    effect = {(row["class"], row["edit"]): row["effect"] for row in table(results, "classes").iter_rows(named=True)}
    for edit in ("zero_value", "mean_value", "donor_value", "rotated_value"):
        assert effect["nop", edit] < 0.01
        assert effect["broadcast", edit] > 20 * effect["nop", edit]
    assert effect["nop", "ordinary_value"] > 20 * effect["nop", "zero_value"]
    for label in ("nop", "broadcast"):
        assert effect[label, "random_value"] < 0.01
        assert effect[label, "redirect"] > 0.01


def test_a_broadcast_is_common_to_all_tokens_and_points_to_the_donor(results: Path) -> None:
    classes = table(results, "classes")
    donor = classes.row(by_predicate=(pl.col("class") == "broadcast") & (pl.col("edit") == "donor_value"), named=True)
    assert donor["common_share"] > 0.9
    assert control(results, "donor")["passed"]


def test_permuted_values_remove_nop_labels_and_keep_broadcast_labels(results: Path) -> None:
    permuted = control(results, "permuted values")
    assert permuted["passed"]
    for label in ("nop", "broadcast"):
        assert permuted["numbers"][f"{label}_events"] >= 0.9 * 16 * DEPTH * HEADS / 2
    assert permuted["numbers"]["nop_left"] < 0.2
    assert permuted["numbers"]["broadcast_kept"] > 0.95


def test_a_random_network_with_too_few_events_cannot_be_a_control(results: Path) -> None:
    random = control(results, "random network")
    assert random["passed"] is None
    assert "no factor gives it as many events as the model" in random["says"]
    assert random["numbers"]["factor"] > 1
    assert random["numbers"]["broadcast"] > 0
    assert random["numbers"]["nop"] == random["numbers"]["other"] == 0


def test_a_random_network_with_as_many_events_has_broadcasts_without_content() -> None:
    """The control on real images."""
    data = ImageData()
    data.setup("validate")
    images = list(data.probe_images(24).images.split(1))
    thresholds = ThresholdConfig()
    rule = next(rule for rule in rules(thresholds) if rule.name == "adaptive")
    outcome = random_network(make({"name": "vit_mini"}).eval(), images, rule, thresholds, target=3.0, seed=0)
    assert outcome.passed, outcome.says
    assert outcome.numbers["events_per_image"] == pytest.approx(3, rel=0.25)
    assert outcome.numbers["nop"] == 0
    assert abs(outcome.numbers["donor_gain"]) < 0.1


def test_a_model_without_events_gets_valid_empty_tables(tmp_path: Path) -> None:
    run(experiment(tmp_path, PlantedTransformer(0).eval(), 8))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["headline"].startswith("No head has 50 events")
    assert len(summary["nearest_heads"]) == 5
    for name in ("rows", "heads", "classes"):
        assert len(table(tmp_path, name)) == 0
    assert {"image", "block", "head", "edit", "effect", "donor_cosine"} <= set(table(tmp_path, "rows").columns)


def test_classes_with_fewer_than_five_heads_are_not_validated(tmp_path: Path) -> None:
    run(experiment(tmp_path, planted(), top=2, top_first_block=1, edits="zero_value"), controls=4)
    assert (
        "Label validation: NA, 2 broadcast and 2 NOP heads"
        in json.loads((tmp_path / "summary.json").read_text())["headline"]
    )
    assert table(tmp_path, "validation")["auc"].is_nan().all()
