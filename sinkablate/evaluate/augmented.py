"""Random crops and flips of images with their masks, and the patch tokens that a frozen backbone makes of them."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import exp, log, sqrt

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image
from torch import Tensor

from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.evaluate.backbones import backbone_at
from sinkablate.evaluate.dense_inputs import DenseSplit
from sinkablate.evaluate.features import READINGS
from sinkablate.evaluate.segmentation_training import Batch, ahead
from sinkablate.evaluate.subject import Subject
from sinkablate.process.cpus import usable_cpus

SCALE, RATIO = (0.5, 1.0), (3 / 4, 4 / 3)
"""Smallest and largest area of a crop as a fraction of the image, and aspect ratio (width over height)."""
_TRIES = 10

Box = tuple[int, int, int, int]


def augmented_batches(
    subject: Subject, split: DenseSplit, batches: Iterable[Tensor], seed: Sequence[int]
) -> Iterator[Batch]:
    """Yield the patch tokens (B, P, D) and masks (B, S, S) of random crops.

    Args:
        subject: The backbone.
        split: The images and masks.
        batches: Numbers of the images of each batch.
        seed: Numbers from which, with that of the image, a crop is drawn.
    """
    backbone = backbone_at(subject.backbone, split.square.size)
    with ThreadPoolExecutor(usable_cpus()) as pool:

        def cropped(numbers: Tensor) -> Batch:
            crops = pool.map(lambda n: random_crop(split, n, crop_generator(seed, n)), numbers.tolist())
            images, masks = zip(*crops, strict=True)
            return torch.stack(images), torch.stack(masks)

        for images, masks in ahead(cropped(numbers) for numbers in batches):
            with measurement_mode(backbone.model):
                tokens = READINGS["patches"](backbone.model, images.to(subject.device))
            yield tokens, masks


def crop_generator(seed: Sequence[int], number: int) -> Generator:
    """Return the generator of the crop of an image.

    The 1 keeps it apart from the generator of the order of the images, which `seed` alone determines: numpy pads a seed
    with zeros, so that without it image 0 would draw the same numbers.
    """
    return np.random.default_rng((*seed, 1, number))


def random_crop(split: DenseSplit, index: int, rng: Generator) -> tuple[Tensor, Tensor]:
    """Crop an image and its mask at random, resize both, and mirror both with probability 1/2.

    Returns:
        The normalized image (C, S, S) and the mask (S, S) uint8.
    """
    square = split.square
    image = square.converted(split.data.image(index), split.data.key(index))
    mask = Image.fromarray(split.data.mask(index))
    box, size = crop_box(*image.size, rng), (square.size, square.size)
    image = image.crop(box).resize(size, Image.Resampling.BILINEAR)
    mask = mask.crop(box).resize(size, Image.Resampling.NEAREST)
    if rng.random() < 0.5:
        image, mask = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (image, mask))
    return square.normalized(image), torch.from_numpy(np.array(mask))


def crop_box(width: int, height: int, rng: Generator) -> Box:
    """Draw left, top, right and bottom of a crop, as torchvision's `RandomResizedCrop` does.

    If ten draws do not fit into the image, the crop is the largest one of an allowed aspect ratio in its center.
    """
    for _ in range(_TRIES):
        area = width * height * rng.uniform(*SCALE)
        ratio = exp(rng.uniform(log(RATIO[0]), log(RATIO[1])))
        w, h = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
            return left, top, left + w, top + h
    w = min(width, round(height * RATIO[1]))
    h = min(height, round(width / RATIO[0]))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
