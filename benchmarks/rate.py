"""The speed of a training loop, of `fit` or any other."""

import math
import time
from typing import Any

import lightning as L

from benchmarks.interleave import settle


class Rate(L.Callback):
    """Measures the images per second of training, without validation and without the first steps if they compile.

    Args:
        skip: Number of steps that are not measured.
    """

    images_per_second = math.nan
    """The result of the latest training."""

    def __init__(self, skip: int) -> None:
        self.skip, self.steps, self.images, self.seconds = skip, 0, 0, 0.0
        self.start()

    def start(self, *_: Any) -> None:
        """Start the clock."""
        settle()
        self.begun = time.perf_counter()

    def count(self, images: int) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps <= self.skip:
            self.start()
        else:
            self.images += images

    def stop(self, *_: Any) -> None:
        """Stop the clock."""
        settle()
        self.seconds += time.perf_counter() - self.begun
        Rate.images_per_second = self.images / self.seconds

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.count(len(batch[0]))

    on_train_epoch_start = on_validation_end = start
    on_validation_start = stop
