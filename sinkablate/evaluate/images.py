"""The images of an evaluation, numbered from 0 in a fixed order, and how each becomes a tensor."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sinkablate.config import BUILT_IN, SourceConfig
from sinkablate.data.classes import class_names, number_of_classes
from sinkablate.data.errors import DataError, ErrorPolicy
from sinkablate.data.locations import expand_location, is_remote
from sinkablate.data.samples import Records
from sinkablate.data.sources import open_split
from sinkablate.data.stream import ShardStream
from sinkablate.diagnose.images import ImageSource, Preparation
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.random_state import random_state_kept
from sinkablate.errors import UserError
from sinkablate.process.cpus import usable_cpus

_PICTURES = ((256, 256, 0, 255), (181, 240, 40, 180), (33, 27, 0, 60))
"""Width, height, smallest and largest value of the pictures by which a transform is identified."""


@dataclass(frozen=True, kw_only=True)
class PreparedImages:
    """A set of images as a model reads them."""

    count: int
    load: Callable[[int], Tensor]
    """From the number of an image to (C, H, W); raises `DataError` if it cannot be read. Called by several threads."""
    name: Callable[[int], str]
    """From the number of an image to its name, for messages."""
    identity: dict[str, Any]
    """Plain values that determine the pixels of all images and their order, with the preprocessing."""
    size: int | None = None
    """Side of the square images in pixels, if the model may have been built for another one; None if it is its own."""

    def __len__(self) -> int:
        return self.count

    def subset(self, numbers: Sequence[int]) -> "PreparedImages":
        """Return some of the images, in the given order."""
        return replace(
            self,
            count=len(numbers),
            load=lambda index: self.load(numbers[index]),
            name=lambda index: self.name(numbers[index]),
            identity={**self.identity, "subset": hashlib.sha256(repr(list(numbers)).encode()).hexdigest()[:16]},
        )


@dataclass(frozen=True, kw_only=True)
class LabeledImages:
    """A set of images with one class each."""

    images: PreparedImages
    targets: Tensor
    """(n,) int64."""
    classes: list[str]
    """Names of the classes; their numbers if the data does not name them."""


@dataclass(frozen=True, kw_only=True)
class ClassSets:
    """The images that `knn` and `linear` read: those that are learned from, and those that are classified."""

    train: LabeledImages
    val: LabeledImages


def class_sets(source: SourceConfig, loaded: LoadedModel) -> ClassSets:
    """Open the training and validation images of a source, prepared for a model.

    With `on_error=skip`, all images are decoded once, and those that cannot be read are left out and logged.

    Raises:
        UserError: The source cannot be read in any order, or contains no images that can be read.
    """
    if source.format == "shards":
        source = _with_random_access(source)
    number = number_of_classes(source)
    names = class_names(source) or list(map(str, range(number)))
    policy = ErrorPolicy(source.on_error)
    sets = {}
    for split in ("train", "val"):
        records = open_split(source, split, number, policy)
        assert not isinstance(records, ShardStream)
        images, targets = prepared(records, loaded), torch.tensor(records.labels)
        if source.on_error == "skip" and source.format not in BUILT_IN:
            numbers = _readable(images, policy)
            if len(numbers) < len(images):
                images, targets = images.subset(numbers), targets[numbers]
        if not len(images):
            raise UserError(f"data.source.{split}={getattr(source, split)}: the split contains no images")
        sets[split] = LabeledImages(images=images, targets=targets, classes=names)
    return ClassSets(**sets)


def _readable(images: PreparedImages, policy: ErrorPolicy) -> list[int]:
    """Return the numbers of the images that can be read; the others are logged and counted by the policy."""

    def reads(number: int) -> bool:
        try:
            images.load(number)
        except DataError as error:
            policy.handle(error)
            return False
        return True

    with ThreadPoolExecutor(max(4, usable_cpus())) as pool:
        return [number for number, read in enumerate(pool.map(reads, range(len(images)))) if read]


def _with_random_access(source: SourceConfig) -> SourceConfig:
    """Return shards that can be read in any order.

    Raises:
        UserError: A shard is not a local file.
    """
    for split in ("train", "val"):
        for shard in expand_location(getattr(source, split), f"data.source.{split}"):
            if is_remote(shard):
                raise UserError(
                    f"data.source.{split}={shard}: not a local file; evaluate reads images in any order, so name local "
                    f"shards or folders with --data.source.{split}"
                )
    return replace(source, reader="indexed")


def prepared(records: Records, loaded: LoadedModel) -> PreparedImages:
    """Return encoded samples as a model reads them; files with a different number of channels are converted."""
    assert loaded.transform is not None
    prepare = Preparation(loaded.transform, loaded.in_chans, min_side=1)
    return PreparedImages(
        count=len(records),
        load=lambda index: prepare(records[index]),
        name=lambda index: records[index].key,
        identity={"images": records.digest(), "preprocessing": loaded.description["preprocessing"]},
    )


def images_at(location: str, loaded: LoadedModel) -> PreparedImages:
    """Return the images of a location, in the forms that `diagnose` reads, as a model reads them."""
    assert loaded.transform is not None
    source = ImageSource(location, Preparation(loaded.transform, loaded.in_chans, min_side=1))
    images = list(source.start(0))
    return PreparedImages(
        count=len(images),
        load=lambda index: images[index].load(),
        name=lambda index: images[index].name,
        identity={"images": source.digest(), "preprocessing": loaded.description["preprocessing"]},
    )


def evenly(total: int, count: int) -> list[int]:
    """Return `count` evenly spaced numbers below `total`, or all of them if there are no more."""
    count = min(total, count)
    return [index * total // count for index in range(count)]


def transform_digest(transform: Callable[[Image.Image], Tensor], in_chans: int) -> str:
    """Return a hash of what a transform makes of a few pictures, which identifies it whatever its name is.

    The pictures are noise of different ranges, with even and odd sides. A transform that refuses all of them has a new
    hash each time, so that its features are not taken for those of another one. The global random state is left as it
    was.

    Args:
        transform: From a picture to (C, H, W).
        in_chans: Number of channels of the pictures.
    """
    content, rng, accepted = hashlib.sha256(), np.random.default_rng(0), False
    with random_state_kept():
        for width, height, darkest, brightest in _PICTURES:
            noise = rng.integers(darkest, brightest + 1, (height, width, in_chans), dtype=np.uint8)
            try:
                pixels = transform(Image.fromarray(noise[..., 0] if in_chans == 1 else noise))
            except Exception:  # for example, the picture is smaller than a crop
                content.update(b"refused")
                continue
            accepted = True
            content.update(f"{pixels.dtype} {tuple(pixels.shape)}".encode())
            content.update(pixels.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return content.hexdigest() if accepted else secrets.token_hex()
