"""A `fit` on a folder with unusual files infers the number of classes and reports what it does not use."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from running import fit, run

from sinkablate.data.folder import FolderRecords
from sinkablate.data.usage import DataUsage


def test_a_fit_reports_the_images_that_it_does_not_use(tmp_path: Path) -> None:
    for split, classes in {"train": ("ant", "bird", "cat"), "val": ("bird", "cat")}.items():
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(7):
                pixels = np.random.default_rng(number).integers(0, 256, (28, 28), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{number}.png")
    (tmp_path / "train" / "cat" / "photo.heic").write_bytes(b"x")
    (tmp_path / "val" / "cat" / "0.png").write_bytes(b"")
    run_dir = tmp_path / "run"
    outcome = fit(
        run_dir,
        "--data.source.format=folder",
        f"--data.source.train={tmp_path}/train",
        f"--data.source.val={tmp_path}/val",
        "--data.source.on_error=skip",
        "--data.num_workers=auto",
        "--diagnostics.images=4",
        "--trainer.limit_train_batches=1.0",
    ).succeeded()
    assert "each epoch leaves out 5 of the 21 training images" in outcome.out
    assert yaml.safe_load((run_dir / "config.yaml").read_text())["data"]["num_workers"] == "auto"
    assert "data: files not read: not an image that can be read (.heic): 1" in outcome.out
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["train_images"], summary["images_dropped_per_epoch"]) == (21, 5)
    assert summary["skipped"].pop("not an image that can be read (.heic)") == 1
    assert summary["skipped"].keys() == {"empty file"}
    assert "empty file" in outcome.out
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert stored["data"]["source"]["num_classes"] == stored["model"]["num_classes"] == 3
    run("predict", "--config", run_dir / "config.yaml", "--run_dir", run_dir).succeeded()
    predictions = pl.read_parquet(run_dir / "predictions.parquet")
    assert dict(zip(predictions["key"], predictions["label"], strict=True)) == {
        f"{name}/{number}": label
        for name, label in {"bird": 1, "cat": 2}.items()
        for number in range(7)
        if (name, number) != ("cat", 0)
    }


@pytest.mark.parametrize(
    ("options", "dropped"),
    [
        ({}, 5),
        ({"max_epochs": 2}, 5),
        ({"limit_train_batches": 1}, 0),
        ({"limit_train_batches": 0.5}, 0),
        ({"max_steps": 1}, 0),
        ({"max_steps": 2}, 5),
        ({"max_steps": 1, "accumulate_grad_batches": 2}, 5),
    ],
)
def test_no_images_are_reported_as_left_out_of_an_epoch_that_the_trainer_shortens(
    options: dict[str, Any], dropped: int
) -> None:
    usage = DataUsage(21, 8, 1, Counter(), Counter())
    trainer = L.Trainer(**{"max_epochs": 1, "logger": False, "accelerator": "cpu"} | options)
    assert usage.dropped_by(trainer) == dropped
    assert bool(usage.notes(trainer)) == bool(dropped)


def test_the_digest_changes_when_a_file_of_the_same_size_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "cat" / "0.bmp"
    path.parent.mkdir()
    Image.new("L", (8, 8), 10).save(path)
    before = FolderRecords(str(tmp_path), key="data.source.train").digest()
    assert FolderRecords(str(tmp_path), key="data.source.train").digest() == before
    changed = path.stat().st_mtime_ns + 1_000_000
    Image.new("L", (8, 8), 20).save(path)
    os.utime(path, ns=(changed, changed))
    assert FolderRecords(str(tmp_path), key="data.source.train").digest() != before
