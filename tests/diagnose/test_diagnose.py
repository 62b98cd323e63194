"""`diagnose` end to end: what it writes and shows, where its images come from, our own runs, Hugging Face's models."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from diagnosing import FILES, arrays, diagnose, photographs, summary
from polars.testing import assert_frame_equal
from running import heads, run, tree

PER_IMAGE = (
    "mass",
    "routed_frac",
    "min_a",
    "cond_mass",
    "ratio_head",
    "ratio_out",
    "stable_rank",
    "routed_stable_rank",
    "rank1_energy",
    "update_norm",
    "sink_value_norm",
    "rel_update",
    "quiet_frac",
    "entropy",
    "row_mass",
    "null_mass",
    "sink_idx",
)
RULES = ("causal", "lejepa", "def1_0.5", "def1_0.3", "def1_0.2", "def1_0.1", "adaptive")
TIMES = ("seconds", "images_per_second", "peak_memory_gib")
RULES = ("causal", "lejepa", "def1_0.5", "def1_0.3", "def1_0.2", "def1_0.1", "adaptive")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished diagnosis of the built-in photographs; to be read, not to be changed."""
    out = tmp_path_factory.mktemp("done") / "out"
    diagnose(out, "builtin", "--batch_size", "4").succeeded()
    return out


# ---- what is written


def test_files_and_nothing_else(done: Path) -> None:
    assert set(tree(done)) == FILES
    for path in done.glob("figures/*"):
        start = {"pdf": b"%PDF", "png": b"\x89PNG"}.get(path.suffix[1:], b"")
        assert path.read_bytes().startswith(start)
        assert path.stat().st_size > 20


def test_arrays_are_images_by_blocks_by_heads(done: Path) -> None:
    stored = arrays(done)
    count = len(stored["image_names"])
    assert count == summary(done)["image_count"] > 8
    assert set(PER_IMAGE) <= stored.keys()
    for name, values in stored.items():
        if name not in ("image_names", "image_numbers", "num_prefix_tokens", "num_register_tokens"):
            assert values.shape == (count, 12, 3), name
    assert (int(stored["num_prefix_tokens"]), int(stored["num_register_tokens"])) == (1, 0)
    assert stored["sink_idx"].dtype.kind == "i"
    assert stored["image_names"][0] == "astronaut.png"


def test_tables_are_tidy(done: Path) -> None:
    heads_, blocks = pl.read_parquet(done / "heads.parquet"), pl.read_parquet(done / "blocks.parquet")
    assert heads_.select("block", "head").rows() == [(block, head) for block in range(12) for head in range(3)]
    assert blocks["block"].to_list() == list(range(12))
    stored = arrays(done)
    for name in ("mass", "ratio_out", "stable_rank", "rel_update"):
        expected = np.median(stored[name], axis=0).reshape(-1)
        np.testing.assert_allclose(heads_[f"median_{name}"], expected, rtol=1e-6)
    assert {
        "causal_frequency",
        "adaptive_nop",
        "specialisation",
        "location_entropy",
        "token_type",
        "payload_constancy",
        "spectral_spike",
    } <= set(heads_.columns)
    assert {
        "mass_cls",
        "mass_patch",
        "events_causal_cls",
        "norm_patch_p99",
        "variance_in",
        "variance_out",
        "massive",
        "kurtosis",
        "kurtosis_attn",
        "max_abs",
        "spectral_spike_max",
    } <= set(blocks.columns)


def test_the_summary_says_what_was_done(done: Path) -> None:
    found = summary(done)
    assert found["model"] == "vit_tiny_patch16_224"
    assert found["weights"] == "random"
    assert found["preprocessing"]["input_size"] == [3, 64, 64]
    assert found["thresholds"]["event_min"] == 0.9
    assert [text.split(":")[0] for text in found["rules"]] == list(RULES)
    for counts in (found["counts"], found["first_block"]):
        assert set(counts) == set(RULES)
        assert {"events", "nop", "broadcast", "other", "undefined", "broadcast_qualified", "by_token_type"} <= counts[
            "causal"
        ].keys()
    assert set(found["label_survival"]) == {"causal", "adaptive"}
    assert 0 <= found["rebuild_error"] < 1e-4
    assert found["seconds"] > 0
    assert found["peak_memory_gib"] > 0
    assert {"torch", "timm", "sinkablate"} <= found["versions"].keys()


def test_the_file_takes_at_most_eighty_bytes_per_event(tmp_path: Path, image_folder: Path) -> None:
    out = tmp_path / "out"
    diagnose(out, image_folder / "train", "--limit", "40", "--min_side", "16", "--batch_size", "40").succeeded()
    stored = arrays(out)
    assert stored["mass"].shape == (40, 12, 3)
    assert (out / "per_image.npz").stat().st_size <= 80 * stored["mass"].size


def test_what_is_shown_as_a_table_and_as_json(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = diagnose(out, "builtin", "--limit", "5", "--batch_size", "3").succeeded().out
    for words in ("preprocessing", "interpolation", "causal", "adaptive", "routed_frac >= 0.9", str(out)):
        assert words in shown
    few, everything, before = arrays(out), arrays(done), tree(out)
    assert few["image_names"].tolist() == everything["image_names"][:5].tolist()
    for name in PER_IMAGE:  # in other batches
        np.testing.assert_allclose(few[name], everything[name][:5], rtol=1e-4, atol=1e-5, err_msg=name)
    again = diagnose(out, "builtin", "--limit", "5").succeeded().out
    assert again == shown
    printed = diagnose(out, "builtin", "--limit", "5", "--format", "json").succeeded().out
    assert json.loads(printed) == summary(out)
    assert tree(out) == before, "a finished one is printed, not made, again"


def test_chosen_blocks_keep_their_numbers(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    diagnose(out, "builtin", "--blocks", "[0,-1]", "--batch_size", "4").succeeded()
    everything, some = arrays(done), arrays(out)
    for name in PER_IMAGE:
        np.testing.assert_array_equal(some[name], everything[name][:, [0, 11]], err_msg=name)
    for table in ("heads", "blocks"):
        whole, part = (pl.read_parquet(where / f"{table}.parquet") for where in (done, out))
        assert part.equals(whole.filter(pl.col("block").is_in([0, 11]))), table
    assert summary(out)["first_block"] == summary(done)["first_block"]


# ---- where the images are


def test_folder_list_and_single_image_are_the_same_pictures(tmp_path: Path) -> None:
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


def test_shards_hold_the_pictures_of_their_folder(shards: Path, image_folder: Path, tmp_path: Path) -> None:
    where = {"shards": f"{shards}/val-{{0000..0001}}.tar", "folder": image_folder / "val"}
    for name, images in where.items():
        diagnose(tmp_path / name, images, "--min_side", "16", "--batch_size", "20").succeeded()
    packed, loose = (arrays(tmp_path / name) for name in where)
    assert len(set(packed["image_names"])) == len(loose["image_names"]) == 20
    by_image = [found["entropy"].mean(axis=(1, 2)) for found in (packed, loose)]
    assert np.diff(np.sort(by_image[1])).min() > 1e-6, "images would be mixed up"
    left, right = (found["mass"][np.argsort(by)] for found, by in zip((packed, loose), by_image, strict=True))
    np.testing.assert_allclose(left, right, rtol=1e-4)


def test_real_weights_see_the_sinks_of_photographs(dinov2: Path, tmp_path: Path) -> None:
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
    stored, found = arrays(out), summary(out)
    assert stored["mass"].shape == (6, 12, 6)
    assert found["weights"] == str(dinov2)
    assert found["counts"]["adaptive"]["events"] > 0
    assert stored["mass"][:, 1:].max() > 0.5
    assert found["rebuild_error"] < 1e-5


# ---- our own runs


def test_a_checkpoint_gives_the_numbers_logged_in_training(finished: Path, tmp_path: Path) -> None:
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


def test_a_run_on_other_images(finished: Path, tmp_path: Path) -> None:
    photographs(tmp_path / "photographs")
    run("diagnose", "--run", finished, "--images", tmp_path / "photographs", "--out", tmp_path / "out").succeeded()
    assert arrays(tmp_path / "out")["image_names"].size == 9
    assert int(arrays(tmp_path / "out")["num_register_tokens"]) == 4


# ---- hugging face


def test_a_local_folder_and_a_configuration(tmp_path: Path) -> None:
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
