"""Writes tiny data sets with masks in the formats in which the originals are distributed."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 20, 30


def write_image(
    path: Path, size: tuple[int, int] = (WIDTH, HEIGHT), color: tuple[int, int, int] = (120, 80, 40)
) -> None:
    """Write a color image; JPEG and PNG by suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def write_mask(path: Path, values: NDArray[np.uint8], palette: bool = False) -> None:
    """Write an index mask; with a palette as in PASCAL VOC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(values)
    if palette:
        mask.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    mask.save(path)


def columns(*values: int) -> NDArray[np.uint8]:
    """Return a mask (20, 30) of vertical stripes with these values."""
    return np.repeat(np.array(values, np.uint8), WIDTH // len(values))[None].repeat(HEIGHT, axis=0)


def write_ade20k(root: Path) -> Path:
    """Write three training images and one validation image like ADEChallengeData2016."""
    for split, count in {"training": 3, "validation": 1}.items():
        for number in range(1, count + 1):
            name = f"ADE_{'train' if split == 'training' else 'val'}_{number:08d}"
            write_image(root / "images" / split / f"{name}.jpg")
            write_mask(root / "annotations" / split / f"{name}.png", columns(0, number, 150))
    names = "\n".join(f"{number}\t0.1\t1\t1\tname {number}, other" for number in range(1, 151))
    (root / "objectInfo150.txt").write_text(f"Idx\tRatio\tTrain\tVal\tName\n{names}\n", encoding="utf-8")
    return root


def write_voc(root: Path) -> Path:
    """Write two training images and one validation image like VOC2012, one of them with boxes, one without a mask."""
    lists = {"Segmentation/train": ["2007_000032", "2007_000039"], "Segmentation/val": ["2007_000033"]}
    for name in [*lists["Segmentation/train"], *lists["Segmentation/val"], "2008_000001"]:
        write_image(root / "JPEGImages" / f"{name}.jpg")
        if name != "2008_000001":
            write_mask(root / "SegmentationClass" / f"{name}.png", columns(0, 1, 255, 20, 15), palette=True)
    write_xml(root / "Annotations" / "2008_000001.xml", [(1, 1, WIDTH, HEIGHT), (5, 6, 10, 12)])
    for name, keys in {**lists, "Main/trainval": ["2008_000001"]}.items():
        path = root / "ImageSets" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(keys) + "\n", encoding="utf-8")
    return root


def write_xml(path: Path, boxes: list[tuple[int, int, int, int]]) -> None:
    """Write the boxes of an image as PASCAL VOC does, with the box of a part, which is not an object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = ("xmin", "ymin", "xmax", "ymax")
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    objects = "".join(
        f"<object><name>person</name><difficult>1</difficult>{part}<bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=True))
        + "</bndbox></object>"
        for box in boxes
    )
    path.write_text(f"<annotation><folder>VOC2007</folder>{objects}</annotation>", encoding="utf-8")


def write_folders(root: Path, train: int = 2, val: int = 1) -> Path:
    """Write images and index masks of three classes in two folders."""
    for split, count in {"train": train, "val": val}.items():
        for number in range(count):
            write_image(root / "images" / split / f"{number}.png")
            write_mask(root / "masks" / split / f"{number}.png", columns(0, 1, 255))
    return root
