"""The task `segmentation` of `evaluate`, with raw pixels as a backbone whose answers are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from evaluating import evaluate, numbers, table
from PIL import Image
from running import assert_refused
from sharing import Once

import sinkablate as sa
from sinkablate.config import SegmentationConfig
from sinkablate.data.dense import open_masks
from sinkablate.diagnose.from_run import load_from_run
from sinkablate.evaluate import augmented
from sinkablate.evaluate.augmented import crop_generator, random_crop
from sinkablate.evaluate.dense_inputs import DenseSplit, SquareImages, dense_sets, normalization, resized_mask

LEVELS = np.array([0, 146], np.uint8)
"""Gray value of each class; their mean is that of the run's preprocessing."""
QUICK = ("--segmentation.num_classes=3", "--segmentation.size=28", "--seeds=3,4")
EPOCHS = {"cached": 120, "augmented": 15}


def write_stripes(root: Path) -> None:
    """Write images of 28 x 28 pixels whose patches of 7 x 7 are black or gray by class; class 2 never occurs."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 6, "val": 6}.items():
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        for index in range(count):
            classes = rng.permutation([0, 0, 1, 1]).repeat(7)[None].repeat(28, axis=0)
            mask = np.where(np.arange(28)[:, None] < 21, classes, 255).astype(np.uint8)
            if index == 5:
                mask[:] = 255
            Image.fromarray(LEVELS[classes]).save(root / "images" / split / f"{index}.png")
            Image.fromarray(mask).save(root / "masks" / split / f"{index}.png")


@pytest.fixture(scope="module")
def dense_folder(once: Once) -> Path:
    return once("stripes", write_stripes)


@pytest.fixture(scope="module", params=["cached", "augmented"])
def segmented(request: pytest.FixtureRequest, finished: Path, dense_folder: Path, once: Once) -> Path:
    """An evaluation by one of the protocols."""

    def write(root: Path) -> None:
        words = (*QUICK, f"--segmentation.data={dense_folder}", f"--segmentation.protocol={request.param}")
        words += (f"--segmentation.epochs={EPOCHS[request.param]}",)
        outcome = evaluate(root / "out", finished, *words, tasks="segmentation").succeeded()
        (root / "stderr.txt").write_text(outcome.err)
        (root / "protocol").write_text(request.param)

    return once(f"segmented_{request.param}", write)


def test_pixels_that_show_the_class_give_a_miou_of_1(segmented: Path) -> None:
    protocol, content = (segmented / "protocol").read_text(), numbers(segmented / "out")
    assert content["segmentation/miou@pixels"] >= (1 if protocol == "cached" else 0.6)
    assert content["segmentation/miou_best@pixels"] >= content["segmentation/miou@pixels"]
    assert content["segmentation/miou_sd"] >= 0
    rows = table(segmented / "out")
    assert set(rows["protocol"]) == {protocol}
    assert set(rows["seed"]) == {3, 4}
    assert set(rows["backbone"]) == {"model", "random", "pixels"}


def test_an_absent_class_and_ignored_images_are_reported(segmented: Path) -> None:
    rows = table(segmented / "out").filter(pl.col("metric") == "iou")
    absent = rows.filter(pl.col("item") == "class 2")["value"]
    assert len(absent) == 6
    assert absent.is_nan().all()
    assert not rows.filter(pl.col("item") != "class 2")["value"].is_nan().any()
    notes = (segmented / "stderr.txt").read_text()
    assert notes.count("class 2 has no pixel in the validation masks: reported as absent (NaN), not as 0") == 1
    assert notes.count("1 of 6 validation images have ignored pixels only and change nothing (5)") == 1
    assert notes.count("1 of 6 training images have ignored pixels only and change nothing (5)") == 1


def test_the_mean_over_classes_is_that_of_the_rows(segmented: Path) -> None:
    rows = table(segmented / "out").filter((pl.col("backbone") == "model") & (pl.col("seed") == 3))
    values = rows.filter(pl.col("metric") == "iou")["value"].to_numpy()
    assert rows.filter(pl.col("metric") == "miou")["value"][0] == pytest.approx(np.nanmean(values))


def test_the_figure_shows_the_classes_that_occur(segmented: Path) -> None:
    drawn = pl.read_csv(segmented / "out" / "figures" / "segmentation.csv")
    assert set(drawn["item"]) == {"class 0", "class 1"}
    assert set(drawn["backbone"]) == {"model", "random", "pixels"}
    assert {path.suffix for path in (segmented / "out" / "figures").glob("segmentation.*")} == {".csv", ".pdf", ".png"}


def test_another_protocol_in_the_same_folder_is_refused(finished: Path, dense_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (f"--segmentation.data={dense_folder}", *QUICK, "--segmentation.epochs=1", "--segmentation.size=56")
    evaluate(out, finished, *words, "--floors=false", tasks="segmentation").succeeded()
    shapes = {tuple(np.load(path).shape[1:]) for path in out.rglob("*.npy")}
    assert shapes == {(56, 56), (64, 64)}  # masks, and 64 patches of a model for images of 28 pixels
    before = (out / "evaluation.json").read_bytes()
    outcome = evaluate(
        out, finished, *words, "--floors=false", "--segmentation.protocol=augmented", tasks="segmentation"
    )
    assert_refused(outcome, "holds an evaluation", "augmented")
    assert (out / "evaluation.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (("--segmentation.num_classes=1",), ("0.png: the value 1 in row", "is not a class")),
        ((), ("segmentation.num_classes is not set",)),
        (("--segmentation.num_classes=3", "--segmentation.size=30"), ("segmentation.size=30", "28 or 35")),
        (("--segmentation.num_classes=3", "--segmentation.epochs=0"), ("segmentation.epochs must be at least 1",)),
        (("--segmentation.num_classes=3", "--segmentation.background=true"), ("segmentation.background=true",)),
    ],
    ids=["class", "no number", "size", "epochs", "background"],
)
def test_wrong_arguments_are_refused_in_one_line(
    words: tuple[str, ...], phrases: tuple[str, ...], finished: Path, dense_folder: Path, tmp_path: Path
) -> None:
    data = f"--segmentation.data={dense_folder}"
    assert_refused(evaluate(tmp_path / "out", finished, data, *words, tasks="segmentation"), *phrases)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (
            lambda root: Image.new("L", (9, 9)).save(root / "masks/val/2.png"),
            "2.png: the mask has 9 x 9 pixels, but its",
        ),
        (lambda root: (root / "masks/val/2.png").unlink(), "1 of 6 names have no mask in masks/val (2)"),
    ],
    ids=["size", "unpaired"],
)
def test_a_wrong_mask_ends_the_command_and_loses_nothing(
    change: Callable[[Path], None], phrase: str, finished: Path, tmp_path: Path
) -> None:
    write_stripes(tmp_path / "data")
    change(tmp_path / "data")
    words = (f"--segmentation.data={tmp_path / 'data'}", *QUICK, "--segmentation.epochs=1", "--floors=false")
    outcome = evaluate(tmp_path / "out", finished, *words, tasks="segmentation")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert phrase in outcome.err.splitlines()[-1]
    write_stripes(tmp_path / "again")
    (tmp_path / "data" / "masks/val/2.png").write_bytes((tmp_path / "again" / "masks/val/2.png").read_bytes())
    evaluate(tmp_path / "out", finished, *words, tasks="segmentation").succeeded()


def test_the_python_api_gives_the_same_numbers(finished: Path, dense_folder: Path, tmp_path: Path) -> None:
    words = (f"--segmentation.data={dense_folder}", *QUICK, "--segmentation.epochs=2", "--floors=false")
    evaluate(tmp_path / "out", finished, *words, tasks="segmentation").succeeded()
    settings = {"segmentation": {"data": str(dense_folder), "num_classes": 3, "size": 28, "epochs": 2}}
    result = sa.evaluate(finished, "segmentation", settings=settings, seeds=(3, 4), floors=False)
    expected = numbers(tmp_path / "out")
    for name in ("miou", "miou_best", "pixel_accuracy", "miou_sd"):
        assert result.summary[f"segmentation/{name}"] == expected[f"segmentation/{name}"]


def test_masks_that_are_ignored_entirely_are_refused(finished: Path, dense_folder: Path, tmp_path: Path) -> None:
    write_stripes(tmp_path)
    for path in (tmp_path / "masks" / "val").iterdir():
        Image.fromarray(np.full((28, 28), 255, np.uint8)).save(path)
    outcome = evaluate(
        tmp_path / "out",
        finished,
        f"--segmentation.data={tmp_path}",
        *QUICK,
        "--segmentation.epochs=1",
        tasks="segmentation",
    )
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].startswith("error: segmentation.data=")
    assert "every pixel of the validation masks is ignored" in outcome.err


def test_a_run_of_28_pixels_reads_scenes_of_56(finished: Path) -> None:
    sets = dense_sets(SegmentationConfig(), load_from_run(str(finished), trust=False))
    assert len(sets.classes) == 10
    assert sets.train.images.load(0).shape == (1, 56, 56)
    assert "from 28 to 56" in sets.train.images.identity["positions"]
    data = open_masks("embedded", "train")
    assert torch.equal(sets.train.masks.load(3), torch.from_numpy(data.mask(3)))
    pixels = torch.from_numpy(np.array(data.image(3))) / 255
    torch.testing.assert_close(sets.train.images.load(3)[0], (pixels - 0.286) / 0.353, atol=1e-4, rtol=0)


def test_the_normalization_follows_from_the_transform() -> None:
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    square = SquareImages(size=8, in_chans=3, mean=mean, std=std)
    measured_mean, measured_std = normalization(square, 3)
    assert measured_mean == pytest.approx(mean, abs=1e-5)
    assert measured_std == pytest.approx(std, abs=1e-5)


def test_a_crop_moves_the_image_and_its_mask_together(dense_folder: Path) -> None:
    data = open_masks(str(dense_folder), "train", num_classes=3)
    split = DenseSplit(
        data=data, square=SquareImages(size=28, in_chans=1, mean=(73 / 255,), std=(73 / 255,)), positions=""
    )
    crops = [random_crop(split, 0, np.random.default_rng(seed)) for seed in range(30)]
    for image, mask in crops:
        kept = mask != 255
        clear = kept & (image[0].abs() > 0.99)  # not blended at an edge
        assert ((image[0] > 0) == (mask == 1))[clear].all()
        assert clear.sum() > 0.7 * kept.sum()
    again = random_crop(split, 0, np.random.default_rng(7))
    assert all(torch.equal(a, b) for a, b in zip(again, crops[7], strict=True))
    assert len({image.numpy().tobytes() for image, _ in crops}) > 10


def test_a_crop_does_not_read_pixels_beyond_its_edge(dense_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_masks(str(dense_folder), "train", num_classes=3)
    monkeypatch.setattr(type(data), "image", lambda *_: Image.fromarray(np.array([[0, 0, 255, 255]] * 4, np.uint8)))
    monkeypatch.setattr(type(data), "mask", lambda *_: np.zeros((4, 4), np.uint8))
    monkeypatch.setattr(augmented, "crop_box", lambda *_: (0, 0, 2, 4))  # the black half
    square = SquareImages(size=28, in_chans=1, mean=(0.0,), std=(1.0,))
    image, _ = random_crop(DenseSplit(data=data, square=square, positions=""), 0, np.random.default_rng(0))
    assert image.max() == 0


def test_a_crop_is_drawn_apart_from_the_order_of_the_images() -> None:
    order = [np.random.default_rng((5, epoch)).random() for epoch in range(3)]
    crops = [crop_generator((5, epoch), number).random() for epoch in range(3) for number in range(3)]
    assert len({*order, *crops}) == 12


def test_a_mask_is_resized_to_the_nearest_pixel() -> None:
    mask = np.array([[0, 7], [255, 3]], np.uint8)
    assert torch.equal(resized_mask(mask, 4), torch.from_numpy(mask.repeat(2, 0).repeat(2, 1)))
