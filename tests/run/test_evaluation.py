"""`validate`, `test` and `predict` reproduce the accuracy of a run and change none of its other files."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
from running import run, summary, tree


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that tests may change."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.mark.parametrize(("verb", "split"), [("validate", "val"), ("test", "test")])
def test_validate_and_test_give_the_accuracy_of_the_run(verb: str, split: str, copy: Path) -> None:
    before = tree(copy)
    words = ("--trainer.limit_test_batches", "2", "--model.optim.opt", "sgd")  # the optimizer has no influence
    run(verb, "--config", copy / "config.yaml", "--run_dir", copy, *words).succeeded()
    results = json.loads((copy / f"{verb}.json").read_text())
    assert results[f"{split}/acc1"] == summary(copy)["val/acc1"]
    assert results[f"{split}/loss"] == pytest.approx(summary(copy)["val/loss"])
    after = tree(copy)
    assert after.pop(f"{verb}.json")
    assert after == before


def test_predict_gives_the_accuracy_of_the_run(copy: Path) -> None:
    before = tree(copy)
    run(
        "predict", "--config", copy / "config.yaml", "--run_dir", copy, "--trainer.limit_predict_batches", "2"
    ).succeeded()
    table = pl.read_parquet(copy / "predictions.parquet")
    assert len(table) == table["key"].n_unique() == 64
    assert (table["label"] == table["predicted"]).mean() == pytest.approx(summary(copy)["val/acc1"])
    assert torch.tensor(table["probability"].to_list()).sum(dim=1) == pytest.approx(1)
    after = tree(copy)
    assert after.pop("predictions.parquet")
    assert after == before
