"""A `fit` on a folder with unusual files infers the number of classes and reports what it does not use."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import yaml
from PIL import Image
from running import fit, run


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
        "--diagnostics.images=4",
        "--trainer.limit_train_batches=1.0",
    ).succeeded()
    assert "each epoch leaves out 5 of the 21 training images" in outcome.out
    assert "data: files not read: 1 not an image that can be read (.heic)" in outcome.out
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
