"""The segmentation probe by which a quantized model without a classifier is judged."""

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from torch import nn

from sinkablate.evaluate.features import MASKS
from sinkablate.evaluate.segmentation import EPOCHS
from sinkablate.evaluate.segmentation_training import Batch, Recipe, ahead, train_head
from sinkablate.evaluate.subject import Subject


def trained_probe(subject: Subject) -> nn.Linear:
    """Train the linear layer of the `cached` protocol of `segmentation` in full precision, with the first seed."""
    train, seed = subject.masked.train, subject.seeds[0]
    tokens, masks = subject.read("patches", train.images), subject.read(MASKS, train.masks)
    recipe = Recipe(epochs=subject.config.segmentation.epochs or EPOCHS["cached"][train.data.name])

    def training(epoch: int) -> Iterator[Batch]:
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(len(masks)))
        return ahead((tokens.take(batch), masks.take(batch)) for batch in order.split(recipe.batch_size))

    return train_head(
        recipe,
        width=tokens.shape[-1],
        classes=len(subject.masked.classes),
        steps_per_epoch=ceil(len(masks) / recipe.batch_size),
        training=training,
        validation=list,
        seed=seed,
        device=subject.device,
    ).head
