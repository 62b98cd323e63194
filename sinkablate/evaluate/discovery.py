"""The task `discovery`: whether the features of patches show where an object is, without any training (LOST)."""

from dataclasses import dataclass
from math import isqrt

import torch

from sinkablate.data.dense import BoxSet, open_boxes
from sinkablate.evaluate.backbones import RawPixels
from sinkablate.evaluate.dense_inputs import square_images, squared
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.lost import LOCALIZED, find_object, overlap, to_pixels
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.subject import Subject


def discovery(subject: Subject) -> list[Row]:
    """Find one object in each image, and measure how often its box is correct (CorLoc).

    `corloc_image` is the CorLoc of a box around the entire image, for which no features are needed. The numbers of the
    images, `iou`, are the overlap with the best ground-truth box.
    """
    config = subject.config.discovery
    boxed = boxed_images(subject)
    boxes, features = boxed.data, subject.read(reading_of(subject), boxed.images)
    overlaps, of_image = [], []
    for first, rows in features.chunks():
        for index, patches in enumerate(rows, first):
            width, height = boxes.image(index).size
            truth = torch.from_numpy(boxes.boxes(index))
            side = isqrt(len(patches))
            found = find_object(patches.to(subject.device), (side, side), config.expansion)
            overlaps.append(overlap(to_pixels(found.box, (side, side), (height, width)), truth))
            of_image.append(overlap(torch.tensor((0, 0, width, height)).double(), truth))
    protocol = protocol_of(subject)
    numbers = {
        name: _share_localized(values) for name, values in {"corloc": overlaps, "corloc_image": of_image}.items()
    }
    return [
        *(Row(task="discovery", protocol=protocol, metric=name, value=value) for name, value in numbers.items()),
        *(
            Row(task="discovery", protocol=protocol, metric="iou", item=boxes.key(index), value=value)
            for index, value in enumerate(overlaps)
        ),
    ]


def _share_localized(overlaps: list[float]) -> float:
    return sum(value >= LOCALIZED for value in overlaps) / len(overlaps)


def protocol_of(subject: Subject) -> str:
    """Return which feature is read and whether its bias was removed, such as `keys, bias removed`."""
    config = subject.config.discovery
    return f"{config.feature}, bias {'removed' if config.remove_bias else 'kept'}"


def reading_of(subject: Subject) -> str:
    """Return the name of the features that are read; the floor of raw pixels reads the pixels of each patch."""
    config = subject.config.discovery
    if isinstance(subject.backbone.model, RawPixels):
        return "patches"
    return f"{config.feature}_without_bias" if config.remove_bias else config.feature


@dataclass(frozen=True)
class BoxedImages:
    """The images of a set with boxes."""

    data: BoxSet
    images: PreparedImages
    """Resized to squares, as the model reads them."""


def boxed_images(subject: Subject) -> BoxedImages:
    """Open the images with boxes.

    Raises:
        UserError: They cannot be opened, or the model does not read images of this size.
    """
    config = subject.config.discovery
    data = open_boxes(config.data)
    square, positions = square_images(subject.loaded, config.size, data.name, "discovery")
    return BoxedImages(data, squared(data, square, positions))
