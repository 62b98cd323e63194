"""Semantic segmentation with a linear layer on frozen patch tokens, by the two protocols of the paper.

`cached` extracts the tokens of every image once; `augmented` extracts them in every epoch, from a random crop that may
be mirrored. The numbers of the two protocols cannot be compared.
"""

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch

from sinkablate.data.dense import IGNORED
from sinkablate.errors import UserError
from sinkablate.evaluate.augmented import augmented_batches
from sinkablate.evaluate.cache import CachedFeatures
from sinkablate.evaluate.dense_inputs import DenseSplit
from sinkablate.evaluate.features import MASKS
from sinkablate.evaluate.miou import iou, mean_iou, pixel_accuracy
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.segmentation_training import Batch, Recipe, Trained, ahead, train_head
from sinkablate.evaluate.subject import Subject
from sinkablate.files.suggestions import first_few

EPOCHS = {
    "cached": {"ADE20K": 25, "VOC": 100, "scenes": 20, "folders": 25},
    "augmented": {"ADE20K": 10, "VOC": 25, "scenes": 10, "folders": 10},
}
"""Protocol -> data set -> number of epochs: the authors' for ADE20K and VOC, which folders take from ADE20K."""


def segmentation(subject: Subject) -> list[Row]:
    """Train a linear layer on patch tokens for each seed, and measure the mIoU of the validation images."""
    sets, config = subject.masked, subject.config.segmentation
    val_masks, val_tokens = subject.read(MASKS, sets.val.masks), subject.read("patches", sets.val.images)
    train_masks = subject.read(MASKS, sets.train.masks)
    if subject.backbone.name == "model":
        _report_labels(subject, sets.train, train_masks, "training")
        absent = _report_labels(subject, sets.val, val_masks, "validation")
        if absent:
            subject.note(
                f"segmentation: {first_few(absent)} {'have' if len(absent) > 1 else 'has'} no pixel in the validation "
                "masks: reported as absent (NaN), not as 0, and left out of the mean"
            )
    recipe = Recipe(epochs=config.epochs or EPOCHS[config.protocol][sets.train.data.name])
    rows = []
    for seed in subject.seeds:

        def training(epoch: int, seed: int = seed) -> Iterator[Batch]:
            numbers = np.random.default_rng((seed, epoch)).permutation(len(train_masks))
            batches = torch.from_numpy(numbers).split(recipe.batch_size)
            if config.protocol == "augmented":
                return augmented_batches(subject, sets.train, batches, (seed, epoch))
            tokens = subject.read("patches", sets.train.images)
            return ahead((tokens.take(batch), train_masks.take(batch)) for batch in batches)

        trained = train_head(
            recipe,
            width=val_tokens.shape[-1],
            classes=len(sets.classes),
            steps_per_epoch=ceil(len(train_masks) / recipe.batch_size),
            training=training,
            validation=lambda: _in_order(val_tokens, val_masks, recipe.batch_size),
            seed=seed,
            device=subject.device,
        )
        rows += _rows(trained, sets.classes, config.protocol, seed)
    return rows


def _rows(trained: Trained, classes: tuple[str, ...], protocol: str, seed: int) -> list[Row]:
    """Return the numbers of one probe: after the last epoch, and of the epoch that is best on the validation images."""
    last, values = trained.counts[-1], [mean_iou(counts) for counts in trained.counts]
    numbers = {
        "miou": values[-1],
        "miou_best": max(values),
        "best_epoch": 1 + values.index(max(values)),
        "epochs": len(values),
        "pixel_accuracy": pixel_accuracy(last),
    }
    rows = [
        Row(task="segmentation", protocol=protocol, metric=name, seed=seed, value=value)
        for name, value in numbers.items()
    ]
    return rows + [
        Row(task="segmentation", protocol=protocol, metric="iou", item=name, seed=seed, value=value)
        for name, value in zip(classes, iou(last).tolist(), strict=True)
    ]


def _in_order(tokens: CachedFeatures, masks: CachedFeatures, batch_size: int) -> Iterator[Batch]:
    batches = torch.arange(len(masks)).split(batch_size)
    return ahead((tokens.take(batch), masks.take(batch)) for batch in batches)


def _report_labels(subject: Subject, split: DenseSplit, masks: CachedFeatures, name: str) -> list[str]:
    """Name the images without a labeled pixel; returns the names of the classes without one.

    Raises:
        UserError: No image has a labeled pixel.
    """
    pixels, unlabeled = torch.zeros(256, dtype=torch.long), []
    for first, chunk in masks.chunks():
        pixels += torch.bincount(chunk.flatten(), minlength=256)
        empty = (chunk == IGNORED).flatten(1).all(1).nonzero().flatten()
        unlabeled += [split.data.key(first + int(index)) for index in empty]
    if len(unlabeled) == len(masks):
        raise UserError(
            f"segmentation.data={subject.config.segmentation.data}: every pixel of the {name} masks is ignored, so "
            "nothing can be learned or measured; check the values of the masks"
        )
    if unlabeled:
        subject.note(
            f"segmentation: {len(unlabeled)} of {len(masks)} {name} images have ignored pixels only and change nothing "
            f"({first_few(unlabeled)})"
        )
    return [name for name, count in zip(split.data.classes, pixels.tolist(), strict=False) if not count]
