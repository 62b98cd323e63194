"""Models of timm and of transformers are evaluated as runs are, on folders and on shards."""

from pathlib import Path
from typing import Any

import pytest
import torch
from evaluating import folder_data, numbers, table
from hugging_face import MODELS, untrained
from pages import small
from running import CONFIGS, Outcome, assert_refused, run
from variants import noise, perturbed

import sinkablate as sa
from sinkablate.api.evaluate import _redrawn
from sinkablate.evaluate.features import READINGS, feature_kind


def evaluate(out: Path, *words: str | Path) -> Outcome:
    return run("evaluate", "--tasks", "knn", "--device", "cpu", "--out", out, *words)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_features_of_transformers_are_normalized_tokens(name: str) -> None:
    model, layout = untrained(name), MODELS[name][1]
    images = noise(2, 3, 32, 32)
    tokens = model(pixel_values=images).last_hidden_state
    if name == "CLIPVision":  # which normalizes only the pooled token
        tokens = model.post_layernorm(tokens)
    torch.testing.assert_close(READINGS["patches"](model, images), tokens[:, layout.num_prefix :])
    pooled = READINGS["pooled"](model, images)
    assert pooled.shape == (2, 2 if layout.num_cls else 1, 48)
    assert feature_kind(model, "auto") == ("cls" if layout.num_cls else "patch")


def test_a_model_of_transformers_is_evaluated(image_folder: Path, tmp_path: Path) -> None:
    untrained("Dinov2WithRegisters").save_pretrained(tmp_path / "model")
    evaluate(tmp_path / "out", "--hf", tmp_path / "model", *folder_data(image_folder)).succeeded()
    assert set(table(tmp_path / "out")["backbone"]) == {"model", "random", "pixels"}


def test_a_timm_model_gives_the_same_on_shards_and_folders(shards: Path, image_folder: Path, tmp_path: Path) -> None:
    model = ("--backbone.name", "vit_tiny_patch16_224", "--backbone.img_size", "32", "--backbone.pretrained", "false")
    source = ("--data.source.format", "shards")
    packed = (*source, "--data.source.train", f"{shards}/train-*.tar", "--data.source.val", f"{shards}/val-*.tar")
    for name, words in {"shards": packed, "folder": folder_data(image_folder)}.items():
        evaluate(tmp_path / name, *model, *words, "--floors", "false").succeeded()
    one, other = ({k: v for k, v in numbers(tmp_path / name).items() if "knn/" in k} for name in ("shards", "folder"))
    assert one == pytest.approx(other, abs=0.05)  # the order of the training images decides ties
    assert set(table(tmp_path / "folder")["backbone"]) == {"model"}


def test_a_toy_is_refused(tmp_path: Path) -> None:
    config = str(CONFIGS / "toy" / "nop.yaml")
    run(*small(["fit", "--config", config, "--run_dir", str(tmp_path / "run")])).succeeded()
    assert_refused(evaluate(tmp_path / "out", "--run", tmp_path / "run"), "does not read images")
    with pytest.raises(sa.UserError, match="does not read images"):
        sa.evaluate(tmp_path / "run")


def test_exactly_one_model_is_needed(tmp_path: Path) -> None:
    assert_refused(evaluate(tmp_path / "out"), "evaluate needs exactly one model")
    assert_refused(evaluate(tmp_path / "out", "--run", "x", "--hf", "y"), "evaluate needs exactly one model")


def test_the_random_floor_of_a_model_in_memory_draws_its_mechanisms() -> None:
    """A gate that starts as the identity is closed, sinks are drawn anew, and the floor depends on the seed only."""
    options: Any = {"gate": "headwise", "gate_start": "identity", "sink": "kv_bias", "pathway": "global"}
    models = [perturbed(sa.create_model("vit_mini", **options), seed=seed) for seed in (1, 2)]
    floors = [_redrawn(model, 0).state_dict() for model in models]
    assert all(torch.equal(floors[0][name], tensor) for name, tensor in floors[1].items())
    assert not floors[0]["blocks.0.attn.gate.weight"].any()
    assert (floors[0]["blocks.0.attn.gate.bias"] == 2).all()
    images = noise(20, 1, 28, 28)
    assert _redrawn(models[0], 0)(images).isfinite().all()


def test_the_interpolation_is_printed_and_results_with_another_are_not_mixed(tmp_path: Path) -> None:
    torch.save(perturbed(sa.create_model("vit_mini")).state_dict(), tmp_path / "mini.pt")
    words = ("evaluate", "--device", "cpu", "--out", tmp_path / "out", "--tasks", "sinks", "--floors", "false")
    images = ("--sinks.images", "builtin", "--sinks.limit", "1")
    model = ("--backbone.name", "vit_mini", "--backbone.checkpoint", tmp_path / "mini.pt", "--backbone.img_size", "56")
    outcome = run(*words, *images, *model).succeeded()
    assert "position embedding resampled from 4 x 4 to 8 x 8 patches (timm: " in outcome.err
    other = run(*words, *images, *model, "--backbone.pos_embed_interpolation", "dinov2")
    assert other.code == 2
    assert "position_embedding={'method': 'timm'" in other.err
