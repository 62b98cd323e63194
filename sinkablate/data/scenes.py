"""Scenes of several garments with pixel masks and boxes: a small dense task that needs no download.

A scene is a gray image of 56 x 56 pixels: two to five of the embedded garments, each resized, perhaps mirrored and
darkened, lie on a textured ground and hide parts of each other. Scenes for training use the training garments and
scenes for validation use the validation garments, so no garment occurs in both.
"""

import hashlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from sinkablate.config import EMBEDDED_CLASSES
from sinkablate.data.embedded import EmbeddedRecords
from sinkablate.data.errors import ErrorPolicy
from sinkablate.data.samples import Encoded, decode

SIDE = 56
"""Side of a scene in pixels."""
SCENES = {"train": 2_000, "val": 500}
"""Number of scenes of each split that have masks and boxes."""
LABELED_SCENES = {"train": 10_000, "val": 500}
"""Number of scenes of each split with a label, on which `fit` trains; the first ones are those of `SCENES`."""
GARMENT_NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""Names of the classes, in the order of the labels."""

_SIDES = (24, 36)
"""Smallest and largest side of a resized garment image."""
_DARKEST = 20
"""Brightest value of the black margin around a garment, whose pixels are not exactly zero after resizing."""
_TRIES = 4
"""Number of places that are drawn for a garment."""
_LEAST_VISIBLE = 16
"""Fewest visible pixels for which a garment has a box."""
_Y, _X = np.mgrid[:SIDE, :SIDE] / SIDE

Pixels = NDArray[np.uint8]


class Scene(NamedTuple):
    """An image with its annotation."""

    image: Pixels
    """(56, 56)."""
    mask: Pixels
    """(56, 56): 0 on the ground, 1 + class on a garment."""
    boxes: NDArray[np.int64]
    """(n, 4): left, top, right, bottom of the visible part of each garment, from the back to the front. The right and
    bottom edges are exclusive. A garment with fewer than 16 visible pixels has no box."""
    target: int
    """The class of the garment with the most visible pixels."""


class SceneRecords:
    """The scenes of a split as labeled images; each is drawn when it is first read and then kept.

    Args:
        split: `train` (10,000 scenes) or `val` (500).
    """

    def __init__(self, split: str) -> None:
        self.split = split
        self._drawn: dict[int, Encoded] = {}
        _garments(split)  # opening reads them, so that no later step waits for them

    def __len__(self) -> int:
        return LABELED_SCENES[self.split]

    def __getitem__(self, index: int) -> Encoded:
        if index not in self._drawn:
            scene = draw_scene(self.split, index)
            self._drawn[index] = Encoded(Image.fromarray(scene.image), scene.target, scene_name(index), "scenes")
        return self._drawn[index]

    @property
    def labels(self) -> list[int]:
        """The label of every scene."""
        return [self[index].target for index in range(len(self))]

    def digest(self) -> str:
        """Return a hash of the pixels and labels of all scenes."""
        content = hashlib.sha256()
        for index in range(len(self)):
            content.update(decode(self[index]).tobytes() + bytes([self[index].target]))
        return content.hexdigest()


def scene_name(index: int) -> str:
    """Return the name of a scene in messages and tables."""
    return f"scene_{index:05d}"


def draw_scene(split: str, index: int, seed: int = 0) -> Scene:
    """Draw a scene: a pure function of its arguments, which uses no global random state.

    Args:
        split: `train` or `val`, whose garments are used.
        index: Number of the scene.
        seed: Another seed gives another set of scenes.
    """
    pixels, labels = _garments(split)
    rng = np.random.default_rng((seed, list(SCENES).index(split), index))
    image = _ground(rng)
    owner = np.full((SIDE, SIDE), -1)
    numbers = rng.integers(len(labels), size=rng.integers(2, 6))
    for position, number in enumerate(numbers):
        garment = _resized(pixels[number], rng)
        inside = silhouette(garment)
        window = _window(owner, inside, rng)
        image[window][inside] = garment[inside]
        owner[window][inside] = position
    classes = labels[numbers]
    mask = np.append(classes + 1, 0).astype(np.uint8)[owner]  # an owner of -1 selects the last entry
    visible = np.bincount(owner[owner >= 0], minlength=len(numbers))
    boxes = [_box(owner == position) for position, count in enumerate(visible) if count >= _LEAST_VISIBLE]
    return Scene(image, mask, np.array(boxes).reshape(-1, 4), int(classes[visible.argmax()]))


def silhouette(garment: Pixels) -> NDArray[np.bool_]:
    """Return the pixels that belong to a garment: those with bright pixels on all four sides, or bright themselves.

    Dark prints and enclosed holes are part of a garment; the gap between the legs of trousers is not.

    Args:
        garment: (H, W), black around the garment.
    """
    bright = garment > _DARKEST
    inside = np.ones_like(bright)
    for axis in (0, 1):
        inside &= np.logical_or.accumulate(bright, axis)
        inside &= np.flip(np.logical_or.accumulate(np.flip(bright, axis), axis), axis)
    return inside


@lru_cache(maxsize=2)
def _garments(split: str) -> tuple[Pixels, NDArray[np.int64]]:
    """Return the garments of a split (n, 28, 28) and their labels (n,)."""
    records = EmbeddedRecords(split, num_classes=EMBEDDED_CLASSES, on_error=ErrorPolicy("stop"))
    samples = [records[index] for index in range(len(records))]
    return np.stack([np.asarray(sample.image) for sample in samples]), np.array([sample.target for sample in samples])


def _ground(rng: Generator) -> Pixels:
    """Draw a textured ground (56, 56): two gratings and noise around a gray level."""
    texture = rng.uniform(0.1, 0.35) + rng.uniform(0.02, 0.05) * rng.standard_normal((SIDE, SIDE))
    for _ in range(2):
        angle, frequency, phase = rng.uniform(0, np.pi), rng.uniform(2, 16), rng.uniform(0, 2 * np.pi)
        wave = np.sin(2 * np.pi * frequency * (np.cos(angle) * _X + np.sin(angle) * _Y) + phase)
        texture += rng.uniform(0.02, 0.06) * wave
    return (255 * texture.clip(0, 1)).astype(np.uint8)


def _window(owner: NDArray[np.int64], inside: NDArray[np.bool_], rng: Generator) -> tuple[slice, slice]:
    """Draw places for a garment; returns the one where it hides the fewest pixels of others, as rows and columns."""
    side = len(inside)
    windows = [
        np.s_[top : top + side, left : left + side] for top, left in rng.integers(SIDE - side + 1, size=(_TRIES, 2))
    ]
    return min(windows, key=lambda window: int((owner[window][inside] >= 0).sum()))


def _resized(garment: Pixels, rng: Generator) -> Pixels:
    """Resize, perhaps mirror, and darken a garment."""
    side = int(rng.integers(_SIDES[0], _SIDES[1] + 1))
    resized = np.asarray(Image.fromarray(garment).resize((side, side), Image.Resampling.BILINEAR))
    mirrored = resized[:, ::-1] if rng.random() < 0.5 else resized
    return (mirrored * rng.uniform(0.7, 1)).astype(np.uint8)


def _box(region: NDArray[np.bool_]) -> list[int]:
    """Return left, top, right and bottom of the pixels of a region; right and bottom are exclusive."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
