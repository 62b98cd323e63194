"""Data sets for dense tasks: images with a class for every pixel, or with the boxes of their objects."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.data.dense_files import IGNORED, MOST_CLASSES, BoxFiles, MaskFiles
from sinkablate.data.dense_layouts import Layout, box_pairs, layout_of, mask_pairs
from sinkablate.data.locations import require_location
from sinkablate.data.scenes import GARMENT_NAMES, SCENES, Scene, draw_scene, scene_name
from sinkablate.errors import UserError

EMBEDDED = "embedded"
"""The location of the scenes that come with the package."""
BACKGROUND = "background"
_HASHED = 8
"""Number of scenes whose pixels are part of the identity of a split."""


class DenseImages(Protocol):
    """Images in a fixed order."""

    @property
    def name(self) -> str:
        """The kind of data set, such as ADE20K."""

    def __len__(self) -> int: ...

    def key(self, index: int) -> str:
        """Return the name of an image."""

    def image(self, index: int) -> Image.Image:
        """Return an image; raises `DataError` if it cannot be read."""

    def identity(self) -> dict[str, Any]:
        """Return plain values that determine the content of the set."""


class MaskSet(DenseImages, Protocol):
    """Images with a class for every pixel."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class of each pixel (H, W), `IGNORED` where there is none; raises `DataError`."""


class BoxSet(DenseImages, Protocol):
    """Images with the boxes of their objects."""

    def boxes(self, index: int) -> NDArray[np.int64]:
        """Return boxes (n, 4): left, top, right, bottom from 0, the last two exclusive; raises `DataError`."""


@dataclass(frozen=True)
class SceneSet:
    """The embedded scenes with masks and boxes, drawn when they are first read and then kept.

    Args:
        split: `train` or `val`.
        background: Whether the ground is a class; otherwise its pixels are ignored.
    """

    split: str
    background: bool = False
    name: str = "scenes"

    def __len__(self) -> int:
        return SCENES[self.split]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return (BACKGROUND, *GARMENT_NAMES) if self.background else GARMENT_NAMES

    def key(self, index: int) -> str:
        """Return the name of a scene."""
        return scene_name(index)

    def image(self, index: int) -> Image.Image:
        """Return a scene."""
        return Image.fromarray(_scene(self.split, index).image)

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Return the class of each pixel, `IGNORED` on the ground unless it is a class."""
        mask = _scene(self.split, index).mask
        return mask if self.background else mask - np.uint8(1)  # the ground, 0, becomes 255

    def boxes(self, index: int) -> NDArray[np.int64]:
        """Return the boxes of the visible parts of the garments."""
        return _scene(self.split, index).boxes

    def identity(self) -> dict[str, Any]:
        """Return plain values that determine the content of the set; the first scenes show how all are drawn."""
        content = hashlib.sha256()
        for index in range(_HASHED):
            content.update(b"".join(array.tobytes() for array in _scene(self.split, index)[:3]))
        return {"data": self.name, "split": self.split, "background": self.background, "digest": content.hexdigest()}


@lru_cache(maxsize=sum(SCENES.values()))
def _scene(split: str, index: int) -> Scene:
    return draw_scene(split, index)


def open_masks(
    location: str,
    split: str,
    *,
    num_classes: int | None = None,
    background: bool = False,
    key: str = "segmentation.data",
) -> MaskSet:
    """Open one split of a data set with masks.

    Args:
        location: `embedded`, or a folder, whose layout is recognized: ADE20K, VOC, or `images/{train,val}` with
            `masks/{train,val}`.
        split: `train` or `val`.
        num_classes: Number of classes; needed for a pair of folders only, where 0 is the first class.
        background: Read the background as a class, before the others, instead of ignoring it.
        key: The configuration key of the location, for messages; the other two keys are next to it.

    Raises:
        UserError: The folder does not exist, has no known layout or the wrong number of classes, or an image or mask
            has no partner.
    """
    require_location(location, key)
    group = key.rpartition(".")[0]
    if location == EMBEDDED:
        _require_own_number(num_classes, len(GARMENT_NAMES), f"{key}={location}", group)
        return SceneSet(split, background)
    root, where = Path(location), f"{key}={location}"
    layout = layout_of(root, where)
    if background and not layout.background:
        raise UserError(f"{group}.background=true: {where} ({layout.name}) has no background class; leave the key out")
    classes = _class_names(root, layout, num_classes, where, group)
    return MaskFiles(
        name=layout.name,
        split=split,
        pairs=mask_pairs(root, layout, split, where),
        layout=layout,
        classes=(BACKGROUND, *classes) if background else classes,
        background=background,
    )


def open_boxes(location: str, *, key: str = "discovery.data") -> BoxSet:
    """Open the images of a data set that have boxes: the validation scenes, or `trainval` of VOC.

    Args:
        location: `embedded`, or a folder with the layout of VOC.
        key: The configuration key of the location, for messages.

    Raises:
        UserError: The folder does not exist, has no boxes, or an image has no file of boxes.
    """
    require_location(location, key)
    if location == EMBEDDED:
        return SceneSet("val")
    root, where = Path(location), f"{key}={location}"
    layout = layout_of(root, where)
    return BoxFiles(name=layout.name, split="trainval", pairs=box_pairs(root, layout, where))


def _class_names(root: Path, layout: Layout, number: int | None, where: str, group: str) -> tuple[str, ...]:
    """Return the names of the classes without the background; their numbers if the data set does not name them."""
    if layout.num_classes is None:
        if number is None:
            raise UserError(
                f"{group}.num_classes is not set; {where} is a pair of folders, whose masks do not state it"
            )
        if not 1 <= number <= MOST_CLASSES:
            raise UserError(f"{group}.num_classes={number}: must be between 1 and {MOST_CLASSES}")
        return tuple(f"class {index}" for index in range(number))
    _require_own_number(number, layout.num_classes, where, group)
    names = layout.names(root)
    numbered = [f"class {index}" for index in range(layout.first, layout.first + layout.num_classes)]
    return tuple(names if len(names) == layout.num_classes else numbered)


def _require_own_number(number: int | None, expected: int, where: str, group: str) -> None:
    if number not in (None, expected):
        raise UserError(f"{group}.num_classes={number}: {where} has {expected} classes; leave the key out")


__all__ = ["BACKGROUND", "EMBEDDED", "IGNORED", "BoxSet", "DenseImages", "MaskSet", "open_boxes", "open_masks"]
