"""What `diagnose` writes and prints."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from diagnosing import FILES, PER_IMAGE, arrays, diagnose
from running import summary, tree

from sinkablate.diagnose.store import FIGURES, RESULTS
from sinkablate.run.directory import DIAGNOSIS

EPS = (0.5, 0.3, 0.2, 0.1)
RULES = ("causal", "lejepa", *(f"{name}_{eps}" for name in ("def1", "def1_lejepa") for eps in EPS), "adaptive")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished diagnosis of the built-in photographs; tests must not change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    diagnose(out, "builtin", "--batch_size", "4").succeeded()
    return out


def test_diagnose_writes_exactly_these_files(done: Path) -> None:
    assert set(tree(done)) == FILES
    assert {path.stem for path in done.glob("figures/*")} == set(FIGURES)
    assert {path.name for path in done.iterdir()} == {DIAGNOSIS, "figures", *RESULTS}
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


def test_the_summary_describes_the_diagnosis(done: Path) -> None:
    content = summary(done)
    assert content["model"] == "vit_tiny_patch16_224"
    assert content["weights"] == "random"
    assert content["preprocessing"]["input_size"] == [3, 64, 64]
    assert content["thresholds"]["event_min"] == 0.9
    assert [text.split(":")[0] for text in content["rules"]] == list(RULES)
    for counts in (content["counts"], content["first_block"]):
        assert set(counts) == set(RULES)
        assert {"events", "nop", "broadcast", "other", "undefined", "broadcast_qualified", "by_token_type"} <= counts[
            "causal"
        ].keys()
    assert set(content["label_survival"]) == {"causal", "adaptive"}
    assert 0 <= content["rebuild_error"] < 1e-4
    assert content["seconds"] > 0
    assert content["peak_memory_gib"] > 0
    assert {"torch", "timm", "sinkablate"} <= content["versions"].keys()


def test_per_image_arrays_take_at_most_eighty_bytes_per_head_and_image(tmp_path: Path, image_folder: Path) -> None:
    out = tmp_path / "out"
    diagnose(out, image_folder / "train", "--limit", "40", "--min_side", "16", "--batch_size", "40").succeeded()
    stored = arrays(out)
    assert stored["mass"].shape == (40, 12, 3)
    assert (out / "per_image.npz").stat().st_size <= 80 * stored["mass"].size


def test_results_are_printed_as_a_table_or_as_json(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = diagnose(out, "builtin", "--limit", "5", "--batch_size", "3").succeeded().out
    for words in ("preprocessing", "interpolation", "causal", "adaptive", "routed_frac >= 0.9", str(out)):
        assert words in shown
    few, everything, before = arrays(out), arrays(done), tree(out)
    assert few["image_names"].tolist() == everything["image_names"][:5].tolist()
    for name in PER_IMAGE:  # measured in batches of another size
        np.testing.assert_allclose(few[name], everything[name][:5], rtol=1e-4, atol=1e-5, err_msg=name)
    again = diagnose(out, "builtin", "--limit", "5").succeeded().out
    assert again == shown
    printed = diagnose(out, "builtin", "--limit", "5", "--format", "json").succeeded().out
    assert json.loads(printed) == summary(out)
    assert tree(out) == before, "a finished diagnosis is only printed again"


def test_chosen_blocks_keep_their_numbers(done: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    diagnose(out, "builtin", "--blocks", "[0,-1]", "--batch_size", "4").succeeded()
    everything, chosen = arrays(done), arrays(out)
    for name in PER_IMAGE:
        np.testing.assert_array_equal(chosen[name], everything[name][:, [0, 11]], err_msg=name)
    for table in ("heads", "blocks"):
        whole, part = (pl.read_parquet(where / f"{table}.parquet") for where in (done, out))
        assert part.equals(whole.filter(pl.col("block").is_in([0, 11]))), table
    assert summary(out)["first_block"] == summary(done)["first_block"]
