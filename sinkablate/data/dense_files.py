"""Images on disk with pixel masks or boxes: each file is checked when it is read, and named if it is wrong."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.data.decode import decode_image
from sinkablate.data.dense_layouts import Layout, Pair
from sinkablate.data.errors import DataError
from sinkablate.data.image_files import size_and_time
from sinkablate.errors import first_line

IGNORED = 255
"""Mask value of pixels without a class."""
MOST_CLASSES = 255
"""Largest number of classes of an 8-bit mask."""
_MOST = 2**16 - 1
"""Largest value of a mask that can be a class or ignored."""


@dataclass(frozen=True, kw_only=True)
class _Files:
    """The images of a split."""

    name: str
    """Name of the layout."""
    split: str
    pairs: Sequence[Pair] = field(repr=False)

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, index: int) -> str:
        """Return the name of an image."""
        return self.pairs[index].key

    def image(self, index: int) -> Image.Image:
        """Read an image.

        Raises:
            DataError: It cannot be read.
        """
        path = self.pairs[index].image
        return decode_image(_content(path), str(path))

    @cached_property
    def digest(self) -> str:
        """Hash of the names of all files, their sizes and the times at which they were last changed."""
        content = hashlib.sha256()
        for pair in self.pairs:
            states = [size_and_time(path) for path in (pair.image, pair.annotation)]
            content.update(f"{pair.key}\0{states}\n".encode(errors="surrogateescape"))
        return content.hexdigest()

    def identity(self) -> dict[str, Any]:
        """Return plain values that determine the content of the set."""
        return {"data": self.name, "split": self.split, "digest": self.digest}


@dataclass(frozen=True, kw_only=True)
class MaskFiles(_Files):
    """Images with index masks.

    Args:
        layout: What the values of a mask mean.
        classes: Names of the classes, the background first if it is one.
        background: Whether the value 0 is a class, the background, instead of being ignored.
    """

    layout: Layout
    classes: tuple[str, ...]
    background: bool = False

    @property
    def _first(self) -> int:
        """The value of the first class."""
        return 0 if self.background else self.layout.first

    @cached_property
    def _classes_by_value(self) -> NDArray[np.int16]:
        """The class of each value of a mask, `IGNORED` for an ignored one, and -1 for one that is invalid."""
        classes = np.full(_MOST + 1, -1, np.int16)
        classes[: self._first] = IGNORED
        classes[255] = IGNORED
        classes[self._first : self._first + len(self.classes)] = np.arange(len(self.classes))
        return classes

    def mask(self, index: int) -> NDArray[np.uint8]:
        """Read a mask.

        Returns:
            (H, W): the class of each pixel of the upright image, `IGNORED` where there is none.

        Raises:
            DataError: The mask cannot be read, differs in size from its image, or contains a value that is not a
                class.
        """
        pair = self.pairs[index]
        values = _index_mask(pair.annotation)
        height, width = values.shape
        size = _upright_size(pair.image)
        if size != (width, height):
            raise DataError(
                f"{pair.annotation}: the mask has {width} x {height} pixels, but its image has {size[0]} x {size[1]}",
                "no image or no label",
            )
        classes = self._classes_by_value[values.clip(0, _MOST)]
        classes[(values < 0) | (values > _MOST)] = -1
        if classes.min() < 0:
            row, column = np.argwhere(classes < 0)[0]
            raise DataError(
                f"{pair.annotation}: the value {values[row, column]} in row {row}, column {column} is not a class; the "
                f"{len(self.classes)} classes have the values {self._first} to {self._first + len(self.classes) - 1}, "
                f"and {'0 and 255 are' if self._first else '255 is'} ignored",
                "wrong label",
            )
        return classes.astype(np.uint8)

    def identity(self) -> dict[str, Any]:
        """Return plain values that determine the content of the set."""
        return super().identity() | {"classes": len(self.classes), "background": self.background}


@dataclass(frozen=True, kw_only=True)
class BoxFiles(_Files):
    """Images with the boxes of their objects, in the XML format of PASCAL VOC."""

    def boxes(self, index: int) -> NDArray[np.int64]:
        """Read the boxes of an image, including those of objects marked as difficult or truncated.

        Returns:
            (n, 4): left, top, right, bottom in pixels from 0; right and bottom are exclusive.

        Raises:
            DataError: The file cannot be read, or a box is not inside the image.
        """
        path = self.pairs[index].annotation
        try:
            corners = [
                [int(float(box.findtext(side, ""))) for side in ("xmin", "ymin", "xmax", "ymax")]
                for box in ElementTree.fromstring(_content(path)).findall("object/bndbox")
            ]
        except (ElementTree.ParseError, ValueError) as error:
            raise DataError(
                f"{path}: not an annotation file with boxes ({first_line(error)})", "unreadable file"
            ) from None
        boxes = np.array(corners, np.int64).reshape(-1, 4) - np.array(
            [1, 1, 0, 0]
        )  # VOC counts from 1, with inclusive edges
        width, height = _upright_size(self.pairs[index].image)
        if (boxes[:, :2] < 0).any() or (boxes[:, 2:] <= boxes[:, :2]).any() or (boxes[:, 2:] > [width, height]).any():
            raise DataError(
                f"{path}: a box is not inside the image, which has {width} x {height} pixels", "wrong label"
            )
        return boxes


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the file cannot be read ({error.strerror})", "unreadable file") from None


def _index_mask(path: Path) -> NDArray[Any]:
    """Read the values of a mask (H, W); those of a palette image are its indices."""
    content = _content(path)
    try:
        mask: Image.Image = Image.open(io.BytesIO(content))
        mask.load()
    except Exception as error:  # PIL's decoders raise many types
        raise DataError(f"{path}: the mask cannot be decoded ({first_line(error)})", "cannot be decoded") from None
    if mask.mode not in ("1", "L", "P", "I", "I;16"):
        raise DataError(
            f"{path}: the mask has colors (mode {mask.mode}); it must have one channel that holds class indices",
            "number of channels",
        )
    values = np.asarray(mask)
    return values.astype(np.uint8) if mask.mode == "1" else values


def _upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image after applying its EXIF orientation, from its header only."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:  # PIL's decoders raise many types
        raise DataError(f"{path}: the image cannot be decoded ({first_line(error)})", "cannot be decoded") from None
    return (height, width) if turned else (width, height)
