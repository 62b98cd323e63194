"""Runs and shards that several tests look at."""

from pathlib import Path

import pytest
from PIL import Image
from reporting import report, trained
from running import CONFIGS, fit, run

from sinkablate.data.embedded import EmbeddedRecords
from sinkablate.data.samples import Faults

PER_CLASS = {"train": 4, "val": 2}


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Colour images of ten classes, in folders train and val of one folder per class."""
    root = tmp_path_factory.mktemp("folder")
    for split, count in PER_CLASS.items():
        left = dict.fromkeys(range(10), count)
        for sample in EmbeddedRecords(split, num_classes=10, faults=Faults("stop")).samples:
            if left[sample.target]:
                left[sample.target] -= 1
                target = root / split / str(sample.target)
                target.mkdir(parents=True, exist_ok=True)
                assert isinstance(sample.image, Image.Image)
                sample.image.convert("RGB").resize((32, 32)).save(target / f"{sample.key}.png")
    return root


@pytest.fixture(scope="session")
def shards(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images in shards of ten."""
    target = tmp_path_factory.mktemp("shards") / "set"
    run("shards", image_folder, target, "--samples_per_shard", "10").succeeded()
    return target


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs of three steps, measured every two steps; to be read, not to be changed."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    fit(run_dir, "--trainer.limit_train_batches", "3", "--trainer.max_epochs", "2", "--diagnostics.every_n_steps", "2",
        "--trainer.limit_val_batches", "2", configs=[CONFIGS / "gate_reg.yaml"]).succeeded()
    return run_dir


@pytest.fixture(scope="session")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `runs`, of eight runs, and `diagnoses`, of one of them; to be read, not to be changed."""
    return trained(tmp_path_factory.mktemp("ablated"))


@pytest.fixture(scope="session")
def reported(ablated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of all of them."""
    out = tmp_path_factory.mktemp("reported") / "out"
    report(out, ablated, "--factors", "gate,registers", "--detect", "0.05").succeeded()
    return out


