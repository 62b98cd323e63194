"""Where models and images of `diagnose` come from: folders, lists, shards, weights, runs, Hugging Face."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diagnosing import PER_IMAGE, arrays, diagnose, photographs
from polars.testing import assert_frame_equal
from running import heads, run, summary


@pytest.mark.heavy
def test_folder_list_and_single_image_give_the_same_results(tmp_path: Path) -> None:
    root = tmp_path / "photographs"
    files = photographs(root)
    listed = root / "list.txt"
    listed.write_text("# nine pictures\n\n" + "".join(f"{path.relative_to(root)}\n" for path in reversed(files)))
    for name, images in {"folder": root, "list": listed, "one": files[3]}.items():
        diagnose(tmp_path / name, images, "--batch_size", "9").succeeded()
    folder, turned, one = (arrays(tmp_path / name) for name in ("folder", "list", "one"))
    assert folder["image_names"].tolist() == [str(path.relative_to(root)) for path in files]
    assert turned["image_names"].tolist() == folder["image_names"].tolist()[::-1]
    assert one["image_names"].tolist() == [files[3].name]
    for name in PER_IMAGE:
        np.testing.assert_allclose(turned[name][::-1], folder[name], rtol=1e-4, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(one[name], folder[name][3:4], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.heavy
def test_shards_give_the_results_of_their_folder(shards: Path, image_folder: Path, tmp_path: Path) -> None:
    where = {"shards": f"{shards}/val-{{0000..0001}}.tar", "folder": image_folder / "val"}
    for name, images in where.items():
        diagnose(tmp_path / name, images, "--min_side", "16", "--batch_size", "20").succeeded()
    packed, loose = (arrays(tmp_path / name) for name in where)
    assert len(set(packed["image_names"])) == len(loose["image_names"]) == 20
    by_image = [stored["entropy"].mean(axis=(1, 2)) for stored in (packed, loose)]
    assert np.diff(np.sort(by_image[1])).min() > 1e-6, "images would be mixed up"
    left, right = (stored["mass"][np.argsort(by)] for stored, by in zip((packed, loose), by_image, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-4)


@pytest.mark.heavy
def test_pretrained_weights_have_sinks_on_photographs(dinov2: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(
        "diagnose",
        "--backbone.name",
        "vit_small_patch14_dinov2",
        "--backbone.img_size",
        "112",
        "--backbone.checkpoint",
        dinov2,
        "--images",
        "builtin",
        "--limit",
        "6",
        "--out",
        out,
    ).succeeded()
    stored, content = arrays(out), summary(out)
    assert stored["mass"].shape == (6, 12, 6)
    assert content["weights"] == str(dinov2)
    assert content["counts"]["adaptive"]["events"] > 0
    assert stored["mass"][:, 1:].max() > 0.5
    assert content["rebuild_error"] < 1e-5


def test_a_checkpoint_gives_the_numbers_logged_during_training(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("diagnose", "--run", finished, "--out", out).succeeded()
    logged = sorted((finished / "diagnostics").glob("step_*.parquet"))[-1]
    step = int(logged.stem.removeprefix("step_"))
    trained, now = heads(finished, step), pl.read_parquet(out / "heads.parquet")
    assert summary(out)["step"] == step
    shared = [name for name in trained.columns if name in now.columns]
    assert {
        "median_mass",
        "median_gated_ratio_out",
        "causal_frequency",
        "effective_causal_nop",
        "sink_idx",
        "payload_constancy",
    } <= set(shared)
    assert_frame_equal(now.select(shared), trained.select(shared), rel_tol=1e-5, abs_tol=1e-6)


def test_a_run_is_diagnosed_on_other_images(finished: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "photographs")
    run("diagnose", "--run", finished, "--images", tmp_path / "photographs", "--out", tmp_path / "out").succeeded()
    assert arrays(tmp_path / "out")["image_names"].size == 9
    assert int(arrays(tmp_path / "out")["num_register_tokens"]) == 4


def test_hugging_face_models_come_from_a_folder_or_a_configuration(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=3,
        mlp_ratio=2,
        image_size=32,
        patch_size=8,
        num_register_tokens=2,
    )
    torch.manual_seed(0)
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path / "model")
    for name, location in {"folder": tmp_path / "model", "config": tmp_path / "model" / "config.json"}.items():
        out = tmp_path / name
        run("diagnose", "--hf", location, "--images", "builtin", "--limit", "4", "--out", out).succeeded()
        assert arrays(out)["mass"].shape == (4, 3, 3)
        assert (int(arrays(out)["num_prefix_tokens"]), int(arrays(out)["num_register_tokens"])) == (3, 2)
    assert summary(tmp_path / "config")["weights"] == "random"
