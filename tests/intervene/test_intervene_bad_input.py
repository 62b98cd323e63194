"""Wrong input of `intervene` is refused in one line, and nothing is changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from intervening import intervene
from running import run, tree


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--heads", "9:0"), "heads: 9:0 is outside the model's 4 blocks of 4 heads"),
        (("--heads", "1"), "'1' is not BLOCK:HEAD"),
        (("--heads", ""), "'' is not BLOCK:HEAD"),
        (("--heads", "1:0,,"), "'' is not BLOCK:HEAD"),
        (("--heads", "1:1:1"), "'1:1:1' is not BLOCK:HEAD"),
        (("--edits", ""), "edits=: no such edit; choose from zero_value"),
        (("--edits", "all,redirect"), "edits=all: no such edit"),
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
        (("--edits", "zero_values"), "edits=zero_values: no such edit; did you mean zero_value or "),
        (("--limit", "1"), "come from other images or texts, but there is only one; give more of them"),
        (("--shard", "3/3"), "shard=3/3"),
        (("--rule", "casual"), "rule=casual: no such rule; choose one of causal"),
        (("--diagnosis", "nowhere"), "diagnosis=nowhere holds no finished diagnosis"),
        (("--batch_size", "0"), "batch_size must be at least 1"),
        (("--control_images", "1"), "control_images must be at least 2"),
        (("--selection.min_events", "0"), "selection.min_events must be at least 1"),
        (("--shard", "0/2", "--overwrite"), "each shard would delete the rows of the others"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    args: tuple[str, ...], line: str, finished: Path, tmp_path: Path
) -> None:
    outcome = run("intervene", "--run", finished, "--out", tmp_path / "out", "--limit", "6", *args)
    assert outcome.code == 2
    assert line in outcome.err
    assert outcome.err.count("\n") <= 1 + outcome.err.count("images/s")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_refused_command_changes_nothing(finished: Path, intervened: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(intervened, copy)
    before = tree(copy)
    for args in (("--rule", "nonsense"), ("--diagnosis", "nowhere"), ("--edits", "none"), ("--images", "")):
        refused = intervene(finished, copy, *args, "--overwrite")
        assert refused.code == 2
        assert tree(copy) == before
    empty = tmp_path / "empty"
    empty.mkdir()
    assert intervene(finished, tmp_path / "out", "--images", empty).code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["intervene", "diagnose"])
def test_a_run_is_not_overwritten(command: str, finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy, symlinks=True)
    before = tree(copy)
    refused = run(command, "--run", finished, "--out", copy, "--limit", "4", "--overwrite")
    assert refused.code == 2
    assert f"out={copy}: contains " in refused.err
    assert tree(copy) == before


def test_a_run_needs_a_checkpoint(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes((finished / "config.yaml").read_bytes())
    outcome = run("intervene", "--run", tmp_path / "run", "--out", tmp_path / "out")
    assert (outcome.code, "has no checkpoint" in outcome.err) == (2, True)
    assert not (tmp_path / "out").exists()
    neither = run("intervene", "--out", tmp_path / "out")
    assert (neither.code, "intervene needs exactly one model" in neither.err) == (2, True)


def test_a_damaged_diagnosis_is_refused_and_named(finished: Path, intervened: Path, tmp_path: Path) -> None:
    shutil.copytree(intervened / "diagnosis", tmp_path / "diagnosis")
    np.savez(tmp_path / "diagnosis" / "per_image.npz", mass=np.zeros(3))
    words = ("--run", finished, "--out", tmp_path / "out", "--diagnosis", tmp_path / "diagnosis")
    refused = run("intervene", *words)
    assert (refused.code, "per_image.npz: damaged (the array image_names is missing)" in refused.err) == (2, True)
    assert not (tmp_path / "out").exists()
