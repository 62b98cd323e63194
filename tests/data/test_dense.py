"""Data sets with masks and boxes, in the formats in which they are distributed."""

import os
from pathlib import Path

import numpy as np
import pytest
from dense_sets import (
    HEIGHT,
    WIDTH,
    columns,
    write_ade20k,
    write_folders,
    write_image,
    write_mask,
    write_voc,
    write_xml,
)
from PIL import Image

from sinkablate.data import dense
from sinkablate.data.dense import open_boxes, open_masks
from sinkablate.data.scenes import draw_scene
from sinkablate.errors import UserError


def test_ade20k_ignores_the_label_0_and_names_150_classes(tmp_path: Path) -> None:
    data = open_masks(str(write_ade20k(tmp_path)), "train")
    assert len(data) == 3
    assert len(data.classes) == 150
    assert data.classes[:2] == ("name 1", "name 2")
    assert data.key(1) == "ADE_train_00000002"
    assert data.image(1).size == (WIDTH, HEIGHT)
    assert np.array_equal(data.mask(1), columns(255, 1, 149))
    assert open_masks(str(tmp_path), "val").key(0) == "ADE_val_00000001"


@pytest.mark.parametrize(
    ("background", "expected"), [(False, columns(255, 0, 255, 19, 14)), (True, columns(0, 1, 255, 20, 15))]
)
def test_voc_reads_palettes_and_its_lists(tmp_path: Path, background: bool, expected: np.ndarray) -> None:
    data = open_masks(str(write_voc(tmp_path)), "train", background=background)
    assert [data.key(index) for index in range(len(data))] == ["2007_000032", "2007_000039"]
    assert len(data.classes) == 20 + background
    assert data.classes[background] == "aeroplane"
    assert np.array_equal(data.mask(0), expected)


def test_voc_boxes_are_those_of_objects_and_count_from_zero(tmp_path: Path) -> None:
    data = open_boxes(str(write_voc(tmp_path)))
    assert len(data) == 1
    assert data.boxes(0).tolist() == [[0, 0, WIDTH, HEIGHT], [4, 5, 10, 12]]


def test_a_pair_of_folders_needs_the_number_of_classes(tmp_path: Path) -> None:
    write_folders(tmp_path)
    data = open_masks(str(tmp_path), "train", num_classes=2)
    assert np.array_equal(data.mask(0), columns(0, 1, 255))
    assert data.classes == ("class 0", "class 1")
    with pytest.raises(UserError, match=r"^segmentation.num_classes is not set; "):
        open_masks(str(tmp_path), "train")
    with pytest.raises(UserError, match=r"^segmentation.background=true: .* has no background class"):
        open_masks(str(tmp_path), "train", num_classes=2, background=True)


def test_scenes_ignore_their_ground_unless_it_is_a_class() -> None:
    raw = draw_scene("val", 5)
    without, with_ground = open_masks("embedded", "val"), open_masks("embedded", "val", background=True)
    assert (len(without.classes), len(with_ground.classes)) == (10, 11)
    assert np.array_equal(with_ground.mask(5), raw.mask)
    assert np.array_equal(without.mask(5), np.where(raw.mask == 0, 255, raw.mask.astype(int) - 1))
    assert np.array_equal(open_boxes("embedded").boxes(5), raw.boxes)


def test_the_identity_of_scenes_changes_with_how_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_masks("embedded", "val").identity()
    assert before == open_masks("embedded", "val").identity() != open_masks("embedded", "train").identity()
    monkeypatch.setattr(dense, "_scene", lambda split, index: draw_scene(split, index, seed=1))
    assert open_masks("embedded", "val").identity() != before


def test_an_upright_mask_fits_a_rotated_photograph(tmp_path: Path) -> None:
    write_folders(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.new("RGB", (HEIGHT, WIDTH)).save(tmp_path / "images" / "train" / "0.png", exif=exif)
    data = open_masks(str(tmp_path), "train", num_classes=2)
    assert data.image(0).size == (WIDTH, HEIGHT)
    assert data.mask(0).shape == (HEIGHT, WIDTH)


def test_the_identity_changes_with_a_file_and_with_the_classes(tmp_path: Path) -> None:
    write_folders(tmp_path)
    identities = [
        open_masks(str(tmp_path), split, num_classes=n).identity() for split, n in [("train", 2), ("train", 3)]
    ]
    write_image(tmp_path / "images" / "train" / "0.png", (300, 200))
    identities.append(open_masks(str(tmp_path), "train", num_classes=2).identity())
    assert all(a != b for index, a in enumerate(identities) for b in identities[:index])


def test_the_identity_changes_when_a_file_of_the_same_size_is_written_again(tmp_path: Path) -> None:
    write_folders(tmp_path)
    for path in sorted(tmp_path.glob("masks/train/*.png")):
        write_mask(path.with_suffix(".bmp"), columns(0, 1, 255))
        path.unlink()
    before = open_masks(str(tmp_path), "train", num_classes=2).identity()
    assert open_masks(str(tmp_path), "train", num_classes=2).identity() == before
    path = tmp_path / "masks/train/0.bmp"
    size, changed = path.stat().st_size, path.stat().st_mtime_ns
    write_mask(path, columns(1, 0, 255))
    assert path.stat().st_size == size
    os.utime(path, ns=(changed + 1_000_000, changed + 1_000_000))
    assert open_masks(str(tmp_path), "train", num_classes=2).identity() != before


@pytest.mark.parametrize("value", [-1, 70_000])
def test_a_value_beyond_16_bits_is_named(tmp_path: Path, value: int) -> None:
    write_folders(tmp_path)
    values = columns(0, 1, 255).astype(np.int32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "masks/train/0.tif")
    (tmp_path / "masks/train/0.png").unlink()
    with pytest.raises(UserError, match=rf"masks/train/0.tif: the value {value} in row 3, column 4 is not a class"):
        open_masks(str(tmp_path), "train", num_classes=2).mask(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda root: write_mask(root / "masks/train/1.png", columns(0, 1)[:10]),
            r"masks/train/1.png: the mask has 30 x 10 .* 30 x 20$",
        ),
        (
            lambda root: write_mask(root / "masks/train/1.png", columns(0, 0, 7)),
            r"masks/train/1.png: the value 7 in row 0, column 20 is not a class; the 2 classes have the values 0 to 1,",
        ),
        (lambda root: write_image(root / "masks/train/1.png"), r"masks/train/1.png: the mask has colors \(mode RGB\)"),
        (lambda root: (root / "masks/train/1.png").write_bytes(b"no image"), r"masks/train/1.png: the mask cannot be"),
        (
            lambda root: write_image(root / "images/train/2.png"),
            r"1 of 3 names have no mask in masks/train \(2\); an image and its",
        ),
        (lambda root: (root / "images/train/0.png").unlink(), r"1 of 2 names have no image in images/train \(0\)"),
        (lambda root: write_image(root / "images/train/0.jpg"), r"0.jpg and 0.png have the same name"),
        (lambda root: [path.unlink() for path in root.glob("*/train/*")], r"images/train contains no images"),
    ],
    ids=["size", "class", "colors", "damaged", "no mask", "no image", "two names", "empty"],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: object, message: str) -> None:
    change(write_folders(tmp_path))  # type: ignore[operator]
    with pytest.raises(UserError, match=message):
        open_masks(str(tmp_path), "train", num_classes=2).mask(1)


def test_a_missing_list_and_a_wrong_box_are_named(tmp_path: Path) -> None:
    write_voc(tmp_path)
    (tmp_path / "ImageSets/Segmentation/val.txt").unlink()
    with pytest.raises(UserError, match=r"val.txt is missing"):
        open_masks(str(tmp_path), "val")
    path = tmp_path / "Annotations/2008_000001.xml"
    write_xml(path, [(1, 1, WIDTH + 1, HEIGHT)])
    with pytest.raises(UserError, match=r"2008_000001.xml: a box is not inside the image, which has 30 x 20 pixels"):
        open_boxes(str(tmp_path)).boxes(0)
    path.write_text("<annotation>", encoding="utf-8")
    with pytest.raises(UserError, match=r"2008_000001.xml: not an annotation file with boxes"):
        open_boxes(str(tmp_path)).boxes(0)


def test_an_unknown_folder_is_refused_with_a_hint(tmp_path: Path) -> None:
    write_voc(tmp_path / "VOCdevkit" / "VOC2012")
    with pytest.raises(
        UserError, match=r"segmentation.data=.*: the layout is unknown; .*; name the folder VOC2012 in it"
    ):
        open_masks(str(tmp_path / "VOCdevkit"), "train")
    with pytest.raises(UserError, match=r"segmentation.data=.*/none: no such directory"):
        open_masks(str(tmp_path / "none"), "train")
    with pytest.raises(UserError, match=r"segmentation.data=\$ADE20K: the environment variable is not set"):
        open_masks("$ADE20K", "train")
    with pytest.raises(UserError, match=r"segmentation.num_classes=11: .*embedded has 10 classes"):
        open_masks("embedded", "train", num_classes=11)
    write_ade20k(tmp_path / "ade")
    with pytest.raises(UserError, match=r"discovery.data=.*: ADE20K has no boxes"):
        open_boxes(str(tmp_path / "ade"))
