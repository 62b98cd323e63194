"""What `intervene` writes: files, shards, resuming, a given diagnosis, overwriting."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from intervening import FILES, HEADS, intervene, same_tables, table
from running import killed, run, summary, tree

from sinkablate.intervene.edits import all_edits


def test_intervene_writes_files_rows_and_controls(intervened: Path) -> None:
    assert {path for path in tree(intervened) if not path.startswith("diagnosis/")} == FILES
    assert (intervened / "diagnosis" / "summary.json").is_file()
    rows = table(intervened, "rows")
    assert {edit.name for edit in all_edits() if not edit.group} - set(rows["edit"]) <= {"random_head"}
    assert rows.group_by("block", "head").len().height == 3
    assert not rows.filter(pl.col("donor") == pl.col("image")).height
    for name in ("effect", "head_change", "local_size", "kl", "agreement", "cross_entropy", "top1", "top1_edited"):
        assert rows[name].is_not_nan().all(), name
    assert table(intervened, "heads").select("block", "head").unique().height == 3
    content = summary(intervened)
    assert [control["name"] for control in content["controls"]] == ["permuted values", "random network", "donor"]
    assert content["edited_heads"] == ["1:0", "2:1", "2:3"]


@pytest.mark.heavy
def test_shards_add_up_to_the_unsharded_result(finished: Path, intervened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for shard in ("1/3", "2/3"):
        outcome = intervene(finished, out, "--shard", shard).succeeded()
        assert "the last of the 3 shards to finish writes the tables" in outcome.out
        assert not (out / "summary.json").exists()
    intervene(finished, out, "--shard", "0/3", "--batch_size", "1").succeeded()
    same_tables(intervened, out)


@pytest.mark.heavy
def test_a_given_diagnosis_gives_the_same_tables(finished: Path, intervened: Path, tmp_path: Path) -> None:
    run("diagnose", "--run", finished, "--out", tmp_path / "diagnosis", "--limit", "6").succeeded()
    heads = tuple(word for word in HEADS if word not in ("--limit", "6"))
    intervene(finished, tmp_path / "out", "--diagnosis", tmp_path / "diagnosis", heads=heads).succeeded()
    same_tables(intervened, tmp_path / "out")
    assert not (tmp_path / "out" / "diagnosis").exists()
    other = intervene(
        finished, tmp_path / "other", "--diagnosis", tmp_path / "diagnosis", "--thresholds.nop_max", "0.1"
    )
    assert other.code == 2
    assert other.err.startswith(f"error: diagnosis={tmp_path / 'diagnosis'} was made with thresholds=")


def test_a_killed_intervention_resumes(finished: Path, intervened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    killed(
        "intervene", "--run", finished, "--out", out, *HEADS, "--batch_size", "1", after=out / "parts", pattern="*.json"
    )
    kept = tree(out / "parts")
    assert kept, "killed before the first image, or after the last"
    intervene(finished, out, "--batch_size", "4").succeeded()
    same_tables(intervened, out)


def test_the_same_command_again_changes_nothing(finished: Path, intervened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(intervened, out)
    before = tree(out)
    assert intervene(finished, out).succeeded().out.startswith(summary(out)["headline"])
    assert tree(out) == before
    refused = intervene(finished, out, "--seed", "1")
    assert (refused.code, "an intervention with seed=0, not 1" in refused.err) == (2, True)
    assert tree(out) == before


def test_overwrite_starts_over(finished: Path, intervened: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(intervened, out)
    intervene(finished, out, "--seed", "1", "--overwrite").succeeded()
    assert summary(out)["seed"] == 1
    assert {path for path in tree(out) if not path.startswith("diagnosis/")} == FILES
