"""Runs and shards that several tests read, made once for all workers; tests must not change them."""

from pathlib import Path

import pytest
from PIL import Image
from reporting import report, trained
from running import CONFIGS, fit, run
from sharing import Once

from sinkablate.data.embedded import EmbeddedRecords
from sinkablate.data.errors import ErrorPolicy

PER_CLASS = {"train": 4, "val": 2}


def write_images(root: Path) -> None:
    """Write color images of ten classes into folders train and val with one folder per class."""
    for split, count in PER_CLASS.items():
        missing = dict.fromkeys(range(10), count)
        for sample in EmbeddedRecords(split, num_classes=10, on_error=ErrorPolicy("stop")):
            if missing[sample.target]:
                missing[sample.target] -= 1
                folder = root / split / str(sample.target)
                folder.mkdir(parents=True, exist_ok=True)
                assert isinstance(sample.image, Image.Image)
                sample.image.convert("RGB").resize((32, 32)).save(folder / f"{sample.key}.png")


def write_run(root: Path) -> None:
    """Train a run of two epochs of three steps, measured every two steps."""
    fit(
        root / "run",
        "--trainer.limit_train_batches",
        "3",
        "--trainer.max_epochs",
        "2",
        "--diagnostics.every_n_steps",
        "2",
        "--trainer.limit_val_batches",
        "2",
        configs=[CONFIGS / "gate_reg.yaml"],
    ).succeeded()


@pytest.fixture(scope="session")
def image_folder(once: Once) -> Path:
    """A small set of images in one folder per class."""
    return once("image_folder", write_images)


@pytest.fixture(scope="session")
def shards(image_folder: Path, once: Once) -> Path:
    """The images of `image_folder` in shards of ten."""
    words = ("--samples_per_shard", "10")
    return once("shards", lambda root: run("shards", image_folder, root / "set", *words).succeeded()) / "set"


@pytest.fixture(scope="session")
def finished(once: Once) -> Path:
    """A finished run."""
    return once("finished", write_run) / "run"


@pytest.fixture(scope="session")
def ablated(image_folder: Path, once: Once) -> Path:
    """Folders `runs`, with eight runs, and `diagnoses` and `edits`, with a diagnosis and an intervention of one."""
    return once("ablated", lambda root: trained(root, image_folder))


@pytest.fixture(scope="session")
def reported(ablated: Path, once: Once) -> Path:
    """A report of all of `ablated`."""
    words = (ablated, ablated / "edits", "--factors", "gate,registers", "--detect", "0.05")
    return once("reported", lambda root: report(root / "out", *words).succeeded()) / "out"
