"""`intervene` as a user runs it: what it leaves, sharding, resuming, and one line for every mistake."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from diagnosing import SMALL
from polars.testing import assert_frame_equal
from running import Outcome, killed, run, tree

from sinkablate.intervene.edits import all_edits

HEADS = ("--heads", "1:0,2:1,2:3", "--limit", "6", "--control_images", "2")
TABLES = ("rows", "heads", "classes", "validation")
FIGURES = ("edits_by_label", "effect_by_ratio")
FILES = {
    "intervention.json",
    "summary.json",
    "values.npz",
    *(f"{name}.parquet" for name in TABLES),
    *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "png", "csv")),
}


def intervene(run_dir: Path, out: Path, *args: str | Path, heads: tuple[str, ...] = HEADS) -> Outcome:
    return run("intervene", "--run", run_dir, "--out", out, *heads, *args)


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads of a run on six of its images; to be read, not to be changed."""
    out = tmp_path_factory.mktemp("intervention") / "out"
    done = intervene(finished, out).succeeded()
    assert done.out.startswith(summary(out)["headline"])
    return out


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        assert_frame_equal(table(one, name), table(other, name), check_exact=True)


def test_what_it_leaves(whole: Path) -> None:
    assert {path for path in tree(whole) if not path.startswith("diagnosis/")} == FILES
    assert (whole / "diagnosis" / "summary.json").is_file()
    rows = table(whole, "rows")
    assert {edit.name for edit in all_edits() if not edit.group} - set(rows["edit"]) <= {"random_head"}
    assert rows.group_by("block", "head").len().height == 3
    assert not rows.filter(pl.col("donor") == pl.col("image")).height
    for name in ("effect", "head_change", "local_size", "kl", "agreement", "cross_entropy", "top1", "top1_edited"):
        assert rows[name].is_not_nan().all(), name
    assert table(whole, "heads").select("block", "head").unique().height == 3
    found = summary(whole)
    assert [control["name"] for control in found["controls"]] == ["permuted values", "random network", "donor"]
    assert found["edited_heads"] == ["1:0", "2:1", "2:3"]


def test_a_shards_rows_are_those_of_the_whole(finished: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for shard in ("1/3", "2/3"):
        said = intervene(finished, out, "--shard", shard).succeeded()
        assert "the last of the 3 shards to finish writes the tables" in said.out
        assert not (out / "summary.json").exists()
    intervene(finished, out, "--shard", "0/3", "--batch_size", "1").succeeded()
    same_tables(whole, out)


def test_a_diagnosis_can_be_given(finished: Path, whole: Path, tmp_path: Path) -> None:
    run("diagnose", "--run", finished, "--out", tmp_path / "diagnosis", "--limit", "6").succeeded()
    heads = tuple(word for word in HEADS if word not in ("--limit", "6"))
    intervene(finished, tmp_path / "out", "--diagnosis", tmp_path / "diagnosis", heads=heads).succeeded()
    same_tables(whole, tmp_path / "out")
    assert not (tmp_path / "out" / "diagnosis").exists()
    other = intervene(
        finished, tmp_path / "other", "--diagnosis", tmp_path / "diagnosis", "--thresholds.nop_max", "0.1"
    )
    assert other.code == 2
    assert other.err.startswith(f"error: diagnosis={tmp_path / 'diagnosis'} was made with thresholds=")


def test_a_killed_run_goes_on(finished: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed(
        "intervene", "--run", finished, "--out", out, *HEADS, "--batch_size", "1", after=out / "parts", pattern="*.json"
    )
    kept = tree(out / "parts")
    assert kept, "killed before the first image, or after the last"
    intervene(finished, out, "--batch_size", "4").succeeded()
    same_tables(whole, out)


def test_the_same_command_again_changes_nothing(finished: Path, whole: Path) -> None:
    before = tree(whole)
    assert intervene(finished, whole).succeeded().out.startswith(summary(whole)["headline"])
    assert tree(whole) == before
    refused = intervene(finished, whole, "--seed", "1")
    assert (refused.code, "an intervention with seed=0, not 1" in refused.err) == (2, True)
    assert tree(whole) == before


def test_a_model_without_events_ends_well(tmp_path: Path) -> None:
    done = run("intervene", *SMALL, "--images", "builtin", "--limit", "3", "--out", tmp_path / "out").succeeded()
    assert done.out.startswith("No head has 50 events (selection.min_events)")
    assert done.out.count("nearest: block") == 5
    assert table(tmp_path / "out", "rows").height == 0
    assert "effect" in table(tmp_path / "out", "rows").columns


def test_real_weights_have_no_label_to_validate(dinov2: Path, tmp_path: Path) -> None:
    said = run(
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
    assert "Label validation: NA" in said.succeeded().out
    assert table(tmp_path / "out", "rows")["effect"].is_not_nan().all()


def test_transformers_models(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--heads", "9:0"), "heads: 9:0 is outside the model's 4 blocks of 4 heads"),
        (("--heads", "1"), "'1' is not BLOCK:HEAD"),
        (("--heads", ""), "'' is not BLOCK:HEAD"),
        (("--heads", "1:0,,"), "'' is not BLOCK:HEAD"),
        (("--heads", "1:1:1"), "'1:1:1' is not BLOCK:HEAD"),
        (("--edits", ""), "edits=: there is no such edit; choose from zero_value"),
        (("--edits", "all,redirect"), "edits=all: there is no such edit"),
        (("--rule", ""), "rule is empty"),
        (("--diagnosis", ""), "diagnosis is empty"),
        (("--limit", "x"), "limit=x"),
        (("--min_side", "0"), "min_side must be at least 1"),
        (("--shard", ""), "shard=: expected k/n"),
        (("--shard", "0/0"), "shard=0/0: expected k/n"),
        (("--seed", "x"), "seed"),
        (("--device", "gpu"), "device=gpu: "),
        (("--images", ""), "images is empty"),
        (("--images", "nowhere"), "images=nowhere: no such file or folder"),
        (("--selection.top", "-1"), "selection.top must be at least 0"),
        (("--format", "xml"), "format"),
        (("--edit", "redirect"), "--edit: no such option; did you mean --edits?"),
        (("--edits", "zero_values"), "edits=zero_values: there is no such edit; did you mean zero_value?"),
        (("--limit", "1"), "take values from other images, but there is only one image"),
        (("--shard", "3/3"), "shard=3/3"),
        (("--rule", "casual"), "rule=casual: no such rule; choose one of causal"),
        (("--diagnosis", "nowhere"), "diagnosis=nowhere holds no finished diagnosis"),
        (("--batch_size", "0"), "batch_size must be at least 1"),
        (("--control_images", "1"), "control_images must be at least 2"),
        (("--selection.min_events", "0"), "selection.min_events must be at least 1"),
        (("--shard", "0/2", "--overwrite"), "shards would remove each other's rows"),
    ],
)
def test_mistakes_are_told_in_one_line(args: tuple[str, ...], line: str, finished: Path, tmp_path: Path) -> None:
    said = run("intervene", "--run", finished, "--out", tmp_path / "out", "--limit", "6", *args)
    assert said.code == 2
    assert line in said.err
    assert said.err.count("\n") <= 1 + said.err.count("images/s")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_what_is_refused_leaves_everything_as_it_was(finished: Path, whole: Path, tmp_path: Path) -> None:
    before = tree(whole)
    for args in (("--rule", "nonsense"), ("--diagnosis", "nowhere"), ("--edits", "none"), ("--images", "")):
        refused = intervene(finished, whole, *args, "--overwrite")
        assert refused.code == 2
        assert tree(whole) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert intervene(finished, tmp_path / "out", "--images", empty).code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("verb", ["intervene", "diagnose"])
def test_a_run_is_not_overwritten(verb: str, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)
    before = tree(copy)
    refused = run(verb, "--run", finished, "--out", copy, "--limit", "4", "--overwrite")
    assert refused.code == 2
    assert f"out={copy} does not hold a" in refused.err
    assert tree(copy) == before


def test_overwrite_starts_over(finished: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    intervene(finished, out, "--seed", "1", "--overwrite").succeeded()
    assert summary(out)["seed"] == 1
    assert {path for path in tree(out) if not path.startswith("diagnosis/")} == FILES


def test_a_run_needs_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    said = run("intervene", "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert (said.code, "has no checkpoint" in said.err) == (2, True)
    assert not (tmp_path / "out").exists()
    neither = run("intervene", "--out", tmp_path / "out")
    assert (neither.code, "intervene needs exactly one model" in neither.err) == (2, True)


def test_one_image_will_do_for_edits_that_borrow_nothing(finished: Path, tmp_path: Path) -> None:
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


def test_a_damaged_diagnosis_is_named(finished: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole / "diagnosis", tmp_path / "diagnosis")
    np.savez(tmp_path / "diagnosis" / "per_image.npz", mass=np.zeros(3))
    words = ("--run", finished, "--out", tmp_path / "out", "--diagnosis", tmp_path / "diagnosis")
    refused = run("intervene", *words)
    assert (refused.code, "per_image.npz: damaged, the array image_names is missing" in refused.err) == (2, True)
    assert not (tmp_path / "out").exists()
