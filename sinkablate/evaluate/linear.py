"""A linear classifier on frozen features; its learning rate and weight decay are chosen on a held-out part of train."""

from collections.abc import Iterator
from itertools import product
from math import cos, pi

import torch
from torch import Tensor
from torch.nn import functional as F

from sinkablate.config import LinearConfig
from sinkablate.errors import UserError
from sinkablate.evaluate.accuracy import accuracies
from sinkablate.evaluate.features import feature_kind, select
from sinkablate.evaluate.rows import Row
from sinkablate.evaluate.subject import Subject

MOMENTUM = 0.9
HELD_OUT = 10
"""One training image in this many is held out while the learning rate and the weight decay are chosen."""


def linear(subject: Subject) -> list[Row]:
    """Train a linear classifier for each seed, and classify the validation images."""
    sets, config = subject.classes, subject.config.linear
    kind = feature_kind(subject.loaded.model, subject.config.features.kind)
    train, val = (
        select(subject.read("pooled", part.images).all(), kind).to(subject.device).float()
        for part in (sets.train, sets.val)
    )
    targets, expected = (part.targets.to(subject.device) for part in (sets.train, sets.val))
    shift, scale = standardization(train)
    for features in (train, val):
        features.sub_(shift).div_(scale)
    rows = []
    for seed in subject.seeds:
        probe = LinearProbe(config, len(sets.train.classes), seed)
        lr, weight_decay, held_out = probe.choose(train, targets)
        weights, bias = probe.fit(train, targets, [(lr, weight_decay)])
        measured = {f"acc{top}": value for top, value in accuracies(val @ weights[0] + bias[0], expected).items()}
        measured |= {"held_out_acc1": held_out, "lr": lr, "weight_decay": weight_decay}
        rows += [
            Row(task="linear", protocol=kind, metric=name, seed=seed, value=value) for name, value in measured.items()
        ]
    chosen = {row.value for row in rows if row.metric == "lr"} & {min(config.lr), max(config.lr)}
    if subject.backbone.name == "model" and len(config.lr) > 1 and chosen:
        subject.note(
            f"linear.lr: {min(chosen):g}, an end of the grid, was chosen; a wider grid may give a better probe"
        )
    return rows


def standardization(features: Tensor, numbers: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of each feature over the training images, (D,) fp32 each.

    They are computed in float64, block by block; the standard deviation of a constant feature is replaced by 1.

    Args:
        features: (n, D).
        numbers: Rows of the features that are used; all by default.
    """
    rows = (torch.arange(len(features)) if numbers is None else numbers).to(features.device)
    blocks = rows.split(65_536)
    mean = torch.stack([features[block].double().sum(dim=0) for block in blocks]).sum(dim=0) / len(rows)
    squares = torch.stack([(features[block].double() - mean).square().sum(dim=0) for block in blocks]).sum(dim=0)
    sd = (squares / len(rows)).sqrt()
    return mean.float(), torch.where(sd > 0, sd, 1.0).float()


class LinearProbe:
    """Multinomial logistic regression by SGD; several settings are trained at the same time, on the same batches.

    Each setting starts from zero weights and takes the steps of `torch.optim.SGD` with momentum 0.9 on the mean
    cross-entropy, with a cosine schedule of the learning rate to 0. The weight decay does not apply to the bias.

    Args:
        config: Grid, number of epochs and size of a batch.
        classes: Number of classes.
        seed: Seed of the held-out part and of the order of the images.
    """

    def __init__(self, config: LinearConfig, classes: int, seed: int) -> None:
        self.config, self.classes, self.seed = config, classes, seed

    def choose(self, features: Tensor, targets: Tensor) -> tuple[float, float, float]:
        """Return the learning rate and weight decay with the best accuracy on a held-out tenth, and this accuracy.

        Of several with the same accuracy, the one with the lowest cross-entropy is chosen. The features are
        standardized on the other nine tenths.

        Args:
            features: Features of the training images, (n, D).
            targets: Classes, (n,).

        Raises:
            UserError: There is only one training image.
        """
        if len(features) < 2:
            raise UserError("linear holds out a tenth of the training images, so it needs at least 2, but there is 1")
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(self.seed))
        count = max(1, len(features) // HELD_OUT)
        held, rest = order[:count].to(features.device), order[count:]
        settings = list(product(self.config.lr, self.config.weight_decay))
        shift, scale = standardization(features, rest)
        weights, bias = self.fit(features, targets, settings, rest, shift=shift, scale=scale)
        judged = (features[held] - shift) / scale
        scores = []
        for index, setting in enumerate(settings):
            logits = judged @ weights[index] + bias[index]
            loss = float(F.cross_entropy(logits, targets[held]).nan_to_num(float("inf")))
            scores.append((accuracies(logits, targets[held])[1], -loss, setting))
        accuracy, _, (lr, weight_decay) = max(scores, key=lambda score: score[:2])
        return lr, weight_decay, accuracy

    def fit(
        self,
        features: Tensor,
        targets: Tensor,
        settings: list[tuple[float, float]],
        numbers: Tensor | None = None,
        *,
        shift: Tensor | float = 0.0,
        scale: Tensor | float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Return the weights (G, D, K) and biases (G, K) that G settings lead to.

        Args:
            features: Features (n, D), in the precision of the computation.
            targets: Classes, (n,).
            settings: (learning rate, weight decay) of each.
            numbers: Rows of the features that are used, on the CPU; all by default.
            shift: Subtracted from the features of each batch.
            scale: By which they are then divided.
        """
        numbers = torch.arange(len(features)) if numbers is None else numbers
        lr, decay = (features.new_tensor(values)[:, None] for values in zip(*settings, strict=True))
        weights = features.new_zeros(features.shape[1], len(settings), self.classes)
        bias = features.new_zeros(len(settings), self.classes)
        speed, bias_speed = torch.zeros_like(weights), torch.zeros_like(bias)
        for share, chosen in self._batches(len(numbers)):
            rows = numbers[chosen].to(features.device)
            x, y = (features[rows] - shift) / scale, targets[rows]
            error = ((x @ weights.flatten(1)).view(len(y), *bias.shape) + bias).softmax(dim=-1)
            error[torch.arange(len(y), device=y.device), :, y] -= 1
            error /= len(y)
            speed.mul_(MOMENTUM).add_((x.mT @ error.flatten(1)).view_as(weights) + decay * weights)
            bias_speed.mul_(MOMENTUM).add_(error.sum(dim=0))
            step = lr * (0.5 * (1 + cos(pi * share)))
            weights -= step * speed
            bias -= step * bias_speed
        return weights.transpose(0, 1), bias

    def _batches(self, count: int) -> Iterator[tuple[float, Tensor]]:
        """Yield the share of all steps that precede a batch, and the numbers of its images, for all epochs."""
        generator = torch.Generator().manual_seed(self.seed)
        steps = -(-count // self.config.batch_size)
        for epoch in range(self.config.epochs):
            order = torch.randperm(count, generator=generator)
            for number, rows in enumerate(order.split(self.config.batch_size)):
                yield (epoch * steps + number) / (self.config.epochs * steps), rows
