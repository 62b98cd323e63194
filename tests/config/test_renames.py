"""A renamed key is refused with its new name; runs that were written with the old one are still read."""

import shutil
from pathlib import Path

import pytest
import torch
import yaml
from running import CONFIGS, fit, run
from sweeping import content, sweep, written

from sinkablate.api.run import load_run
from sinkablate.config.renames import RENAMED, with_current_names
from sinkablate.run.directory import WRITTEN_BY
from sinkablate.run.reading import read_yaml

LEJEPA = CONFIGS / "lejepa_small.yaml"
KEYS = pytest.mark.parametrize(("old", "new"), RENAMED.items())


def answer(old: str, new: str, place: str = "") -> str:
    return f"error: {place}{old}: this key has been renamed; use {new}\n"


@KEYS
def test_a_command_line_names_the_new_key(old: str, new: str, tmp_path: Path) -> None:
    outcome = run("fit", "--config", LEJEPA, f"--{old}=1", "--run_dir", tmp_path / "run")
    assert (outcome.code, outcome.err) == (2, answer(old, new))
    assert not (tmp_path / "run").exists()


@KEYS
@pytest.mark.parametrize("nested", [True, False])
def test_a_file_names_the_new_key(old: str, new: str, nested: bool, tmp_path: Path) -> None:
    group, _, leaf = old.rpartition(".")
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({group: {leaf: 1}} if nested else {old: 1}))
    outcome = run("fit", "--config", LEJEPA, "--config", path, "--run_dir", tmp_path / "run")
    assert (outcome.code, outcome.err) == (2, answer(old, new, f"{path}: "))


def test_a_group_in_one_word_names_the_new_key(tmp_path: Path) -> None:
    outcome = fit(tmp_path / "run", "--data.views={grey_prob: 0.5}")
    assert (outcome.code, outcome.err) == (2, answer("data.views.grey_prob", "data.views.grayscale_prob"))


def test_a_sweep_names_the_new_key(tmp_path: Path) -> None:
    path = written(tmp_path, content({"data.views.grey_prob": {"values": [0.1, 0.2]}}))
    outcome = sweep("plan", path)
    assert outcome.code == 2
    assert "data.views.grey_prob: this key has been renamed; use data.views.grayscale_prob" in outcome.err


def test_the_new_name_wins_where_both_are_given() -> None:
    views = {"grey_prob": 0.1, "grayscale_prob": 0.2, "hflip": 0.5}
    assert with_current_names({"data": {"views": views}}) == {"data": {"views": {"grayscale_prob": 0.2, "hflip": 0.5}}}
    assert with_current_names({"model.lejepa.out": 3}) == {"model.lejepa.proj_dim": 3}


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished LeJEPA run whose files have the keys of an earlier version."""
    root = tmp_path_factory.mktemp("old") / "run"
    fit(root, configs=[LEJEPA]).succeeded()
    names = {new.rpartition(".")[2]: old.rpartition(".")[2] for old, new in RENAMED.items()}
    config = yaml.safe_load((root / "config.yaml").read_text())
    for group in (config["data"]["views"], config["model"]["lejepa"]):
        for new in names.keys() & group.keys():
            group[names[new]] = group.pop(new)
    (root / "config.yaml").write_text(f"{WRITTEN_BY}0.1\n{yaml.safe_dump(config)}")
    checkpoint = torch.load(root / "checkpoints" / "last.ckpt", weights_only=True)
    saved = checkpoint["hyper_parameters"]["lejepa"]
    for new in names.keys() & saved.keys():
        saved[names[new]] = saved.pop(new)
    torch.save(checkpoint, root / "checkpoints" / "last.ckpt")
    return root


def test_an_old_run_is_validated_and_loaded(old_run: Path) -> None:
    run("validate", "--run", old_run, "--wandb.mode=disabled").succeeded()
    assert read_yaml(old_run / "config.yaml")["data"]["views"]["grayscale_prob"] == 0.2
    assert load_run(str(old_run)).config["model"]["lejepa"]["proj_dim"] == 64


def test_an_old_run_is_resumed_and_compared_by_the_new_keys(old_run: Path, tmp_path: Path) -> None:
    root = shutil.copytree(old_run, tmp_path / "run", symlinks=True)
    finished = fit(root, "--ckpt_path=auto", "--model.lejepa.num_slices=9", configs=[LEJEPA])
    assert finished.err.startswith(f"error: model.lejepa.num_slices=9: run_dir={root}")
    assert "finished run with 256" in finished.err
    (root / "DONE").unlink()
    refused = fit(root, "--ckpt_path=auto", "--model.lejepa.num_slices=9", configs=[LEJEPA])
    assert "model.lejepa.num_slices=9 differs from the checkpoint's 256" in refused.err
    fit(root, "--ckpt_path=auto", configs=[LEJEPA]).succeeded()
    assert "grayscale_prob" in yaml.safe_load((root / "config.yaml").read_text())["data"]["views"]
