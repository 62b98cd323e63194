"""Trains the linear head of a segmentation probe; the recipe is that of the paper's Table 1."""

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkablate.data.dense import IGNORED
from sinkablate.evaluate.miou import confusion, mean_iou

Batch = tuple[Tensor, Tensor]
"""Patch tokens (B, P, D) of any precision, and classes (B, S, S) uint8."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the head is trained: AdamW with a linear warm-up and a cosine decay of the learning rate."""

    epochs: int
    batch_size: int = 32
    lr: float = 5e-3
    weight_decay: float = 1e-2
    clip: float = 1.0
    """Largest norm of the gradient."""
    warmup_steps: int = 100
    lowest: float = 0.01
    """Learning rate of the first step and after the last one, as a fraction of `lr`."""

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step from 0 of `steps` steps in all, as a fraction of `lr`."""
        if step < self.warmup_steps:
            return self.lowest + (1 - self.lowest) * step / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, steps - self.warmup_steps)
        return self.lowest + (1 - self.lowest) * (1 + math.cos(math.pi * min(1.0, done))) / 2


class Trained(NamedTuple):
    """A trained head, with the pixels of the validation set counted after every epoch."""

    head: nn.Linear
    counts: list[Tensor]
    """Confusion matrices (C, C), one per epoch."""

    @property
    def best(self) -> Tensor:
        """The confusion matrix of the epoch with the largest mIoU, which is chosen on the validation set."""
        return max(self.counts, key=mean_iou)


def class_logits(head: nn.Linear, tokens: Tensor, size: int) -> Tensor:
    """Apply the head to every patch and enlarge the result bilinearly to pixels.

    Args:
        head: From D features to C classes.
        tokens: Patch tokens (B, P, D) of a square grid, row by row.
        size: Side S of the image in pixels.

    Returns:
        (B, C, S, S).
    """
    side = isqrt(tokens.shape[1])
    logits = head(tokens).mT.unflatten(2, (side, side))
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


def pixel_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy over the pixels that are not ignored; 0 if all are.

    Args:
        logits: (B, C, S, S).
        target: Classes (B, S, S); `IGNORED` pixels are left out.
    """
    total = F.cross_entropy(logits, target.long(), ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp(min=1)


def train_head(
    recipe: Recipe,
    *,
    width: int,
    classes: int,
    steps_per_epoch: int,
    training: Callable[[int], Iterable[Batch]],
    validation: Callable[[], Iterable[Batch]],
    seed: int,
    device: torch.device,
    advance: Callable[[], None] = lambda: None,
) -> Trained:
    """Train a linear head on patch tokens, and evaluate it after every epoch.

    Args:
        recipe: How it is trained.
        width: Number of features D of a token.
        classes: Number of classes C.
        steps_per_epoch: Number of batches of an epoch.
        training: From the number of an epoch to its batches.
        validation: Returns the batches of the validation set.
        seed: Seed of the initial weights. No global random state changes.
        device: Where it is trained.
        advance: Called after every epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        head = nn.Linear(width, classes).to(device)
    optimizer = torch.optim.AdamW(head.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, steps))
    counts = []
    for epoch in range(recipe.epochs):
        for tokens, target in _moved(training(epoch), device):
            loss = pixel_loss(class_logits(head, tokens, target.shape[-1]), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(head.parameters(), recipe.clip)
            optimizer.step()
            schedule.step()
        counts.append(count_pixels(head, validation(), classes, device))
        advance()
    return Trained(head, counts)


def ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches while a thread prepares the next one."""
    iterator = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, iterator, None)
        while (batch := waiting.result()) is not None:
            waiting = pool.submit(next, iterator, None)
            yield batch


@torch.no_grad()
def count_pixels(head: nn.Linear, batches: Iterable[Batch], classes: int, device: torch.device) -> Tensor:
    """Return the confusion matrix (C, C) of a head on a set, on the CPU."""
    counts = torch.zeros(classes, classes, dtype=torch.long, device=device)
    for tokens, target in _moved(batches, device):
        counts += confusion(class_logits(head, tokens, target.shape[-1]).argmax(1), target, classes)
    return counts.cpu()


def _moved(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield batches on a device, the tokens in single precision."""
    for tokens, target in batches:
        yield tokens.to(device).float(), target.to(device)
