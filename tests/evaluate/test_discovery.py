"""The task `discovery`, from the command line."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from dense_sets import write_xml
from evaluating import evaluate, numbers, table
from PIL import Image
from running import assert_refused
from sharing import Once
from variants import make, noise, perturbed

from sinkablate.evaluate.features import READINGS

BOXES = {"one": (10, 8, 30, 32), "two": (50, 16, 90, 56), "three": (0, 0, 40, 16)}
"""Left, top, right and bottom edge of the object of each image, at multiples of 10 and 8 pixels."""


def write_planted(root: Path) -> None:
    """Write images of 100 x 80 pixels like VOC, with a white rectangle on black; 10 x 10 patches have 10 x 8 pixels."""
    for name, (left, top, right, bottom) in BOXES.items():
        pixels = np.zeros((80, 100, 3), np.uint8)
        pixels[top:bottom, left:right] = 255
        path = root / "JPEGImages" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=100, subsampling=0)
        write_xml(root / "Annotations" / f"{name}.xml", [(left + 1, top + 1, right, bottom)])
    for name in ("Main/trainval", "Segmentation/train", "Segmentation/val"):
        path = root / "ImageSets" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(BOXES) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def discovered(finished: Path, once: Once) -> Path:
    """The objects that a run and its floors find in planted images; `data` holds the images."""

    def write(root: Path) -> None:
        write_planted(root / "data")
        words = ("--discovery.data", root / "data", "--discovery.size", "70")
        evaluate(root / "out", finished, *words, tasks="discovery").succeeded()

    return once("discovered", write)


def test_planted_objects_are_found_in_raw_pixels(discovered: Path) -> None:
    """Normalized black and white pixels have opposite signs, so the raw pixels of patches are planted features."""
    rows = table(discovered / "out").filter(pl.col("backbone") == "pixels")
    corloc = dict(rows.filter(pl.col("item") == "").select("metric", "value").iter_rows())
    assert corloc == {"corloc": 1, "corloc_image": 0}
    overlaps = rows.filter(pl.col("metric") == "iou")
    assert overlaps["item"].to_list() == list(BOXES)
    assert overlaps["value"].to_list() == pytest.approx([1, 1, 1])


def test_the_protocol_names_the_feature_and_its_bias(discovered: Path, finished: Path, tmp_path: Path) -> None:
    assert set(table(discovered / "out")["protocol"]) == {"keys, bias kept"}
    assert 0 <= numbers(discovered / "out")["discovery/corloc"] <= 1
    words = ("--discovery.data", discovered / "data", "--discovery.size", "70", "--floors", "false")
    more = ("--discovery.feature", "values", "--discovery.remove_bias", "true")
    evaluate(tmp_path / "out", finished, *words, *more, tasks="discovery").succeeded()
    assert set(table(tmp_path / "out")["protocol"]) == {"values, bias removed"}


@torch.no_grad()
def test_readings_without_bias() -> None:
    model, images = perturbed(make()).eval(), noise(2, 1, 28, 28)
    biases = model.blocks[-1].attn.qkv.bias.chunk(3)
    for name, bias in zip(("queries", "keys", "values"), biases, strict=True):
        torch.testing.assert_close(
            READINGS[f"{name}_without_bias"](model, images), READINGS[name](model, images) - bias, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--discovery.data", "no/such/folder"), ("discovery.data=no/such/folder",)),
        (("--discovery.size", "50"), ("discovery.size=50", "multiple")),
        (("--discovery.expansion", "0"), ("discovery.expansion must be at least 1",)),
    ],
)
def test_wrong_settings_are_refused(
    words: tuple[str, ...], phrases: tuple[str, ...], finished: Path, tmp_path: Path
) -> None:
    assert_refused(evaluate(tmp_path / "out", finished, *words, tasks="discovery"), *phrases)
