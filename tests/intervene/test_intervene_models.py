"""`intervene` on an untrained model, on pretrained weights and on models of transformers."""

from pathlib import Path

import pytest
from diagnosing import SMALL
from intervening import table
from running import run


def test_a_model_without_events_succeeds_with_empty_tables(tmp_path: Path) -> None:
    done = run("intervene", *SMALL, "--images", "builtin", "--limit", "3", "--out", tmp_path / "out").succeeded()
    assert done.out.startswith("No head has 50 events (selection.min_events)")
    assert done.out.count("nearest: block") == 5
    assert table(tmp_path / "out", "rows").height == 0
    assert "effect" in table(tmp_path / "out", "rows").columns


@pytest.mark.heavy
def test_too_few_labeled_heads_are_not_validated_on_pretrained_weights(dinov2: Path, tmp_path: Path) -> None:
    outcome = run(
        "intervene",
        "--backbone.name",
        "vit_small_patch14_dinov2.lvd142m",
        "--backbone.checkpoint",
        dinov2,
        "--backbone.img_size",
        "98",
        "--images",
        "builtin",
        "--limit",
        "4",
        "--out",
        tmp_path / "out",
        "--heads",
        "0:5,10:2",
        "--edits",
        "zero_value,mean_value,donor_value,rotated_value",
        "--control_images",
        "2",
    )
    assert "Label validation: NA" in outcome.succeeded().out
    assert table(tmp_path / "out", "rows")["effect"].is_not_nan().all()


@pytest.mark.heavy
def test_transformers_models_are_edited(tmp_path: Path) -> None:
    models = pytest.importorskip("hugging_face")
    models.untrained("Dinov2WithRegisters").save_pretrained(tmp_path / "model")
    run(
        "intervene",
        "--hf",
        tmp_path / "model",
        "--images",
        "builtin",
        "--limit",
        "3",
        "--out",
        tmp_path / "out",
        "--heads",
        "0:0,1:2",
        "--control_images",
        "2",
    ).succeeded()
    assert {"register_zero", "redirect"} <= set(table(tmp_path / "out", "rows")["edit"])


@pytest.mark.heavy
def test_one_image_suffices_for_edits_without_donors(finished: Path, tmp_path: Path) -> None:
    run(
        "intervene",
        "--run",
        finished,
        "--out",
        tmp_path / "out",
        "--limit",
        "1",
        "--heads",
        "1:0",
        "--edits",
        "zero_value,redirect,random_value",
    ).succeeded()
    assert table(tmp_path / "out", "rows")["edit"].to_list() == ["zero_value", "redirect", "random_value"]
