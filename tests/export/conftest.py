"""Exported runs and a run with averaged weights, made once for all workers; tests must not change them."""

from functools import partial
from pathlib import Path

import pytest
from running import fit, run
from safetensors.torch import save_file
from sharing import Once

from sinkablate.config import BackboneConfig
from sinkablate.vit.backbone import build_backbone


@pytest.fixture(scope="session")
def exported(finished: Path, once: Once) -> Path:
    """The run `finished` in the hub format, in a folder whose parent did not exist."""

    def write(root: Path) -> None:
        run("export", "--run", finished, "--out", root / "parent" / "model").succeeded()

    return once("exported", write) / "parent" / "model"


def write_averaged(images: Path, root: Path) -> None:
    """Train a run with averaged weights on images in folders, started from a local file with a telling name."""
    start = root / "of_jane_doe.safetensors"
    shape = {"num_classes": 10, "in_chans": 3, "img_size": 28}
    save_file(build_backbone(BackboneConfig(), **shape).state_dict(), start)
    words = (
        "--data.source.format",
        "folder",
        "--data.source.train",
        images / "train",
        "--data.source.val",
        images / "val",
    )
    color = ("--data.image.in_chans", "3", "--data.image.mean", "[0.5,0.5,0.5]", "--data.image.std", "[0.2,0.2,0.2]")
    ema = ("--model.ema.decay", "0.5", "--model.backbone.checkpoint", start, "--variant", "averaged")
    more = ("--trainer.max_epochs", "2", "--model.backbone.attention.kernel", "explicit")
    fit(root / "jane_doe", *words, *color, *ema, *more).succeeded()


@pytest.fixture(scope="session")
def averaged(once: Once, image_folder: Path) -> Path:
    """A run with averaged weights, in a directory with a person's name."""
    return once("averaged", partial(write_averaged, image_folder)) / "jane_doe"
