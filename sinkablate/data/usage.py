"""How much of its data training uses: images that fill no batch, and files that are not read or are skipped."""

from collections import Counter
from typing import Any, NamedTuple

import lightning as L
import torch

from sinkablate.data.errors import REASONS
from sinkablate.data.image_files import format_counts


class DataUsage(NamedTuple):
    """Use of the training data, as one process counts it."""

    size: int
    """Number of training images."""
    batch_size: int
    repeats: int
    """Number of times an image occurs in an epoch."""
    ignored: "Counter[str]"
    """Files in the data folders that are not read as images, by reason."""
    skipped: "Counter[str]"
    """Samples and shards that could not be read, by reason; a sample counts each time it is drawn."""

    @property
    def dropped(self) -> int:
        """Number of training images that an epoch leaves out because the batch size does not divide their number."""
        return self.size - -(-(self.size // self.batch_size * self.batch_size) // self.repeats)

    def dropped_by(self, trainer: L.Trainer) -> int:
        """Number of training images that each epoch of a training run leaves out; 0 if the trainer shortens epochs.

        In an epoch that `limit_train_batches` or `max_steps` shortens, the batch size does not decide what is left out.
        """
        batches = self.size // self.batch_size
        limited = isinstance(trainer.limit_train_batches, int) or trainer.limit_train_batches != 1
        stopped = 0 <= trainer.max_steps * trainer.accumulate_grad_batches < batches
        return 0 if limited or stopped else self.dropped

    def notes(self, trainer: L.Trainer) -> list[str]:
        """Lines that a user should read before training starts."""
        lines = []
        if self.dropped_by(trainer):
            lines.append(
                f"data: each epoch leaves out {self.dropped:,} of the {self.size:,} training images, a "
                f"different set each time (batches of data.batch_size={self.batch_size})"
            )
        if self.ignored:
            lines.append(f"data: files not read: {format_counts(self.ignored)}")
        return lines

    def summary(self, trainer: L.Trainer) -> dict[str, Any]:
        """Entries of `summary.json`, summed over all processes. A collective: every rank must call it."""
        own_counts = torch.tensor([self.skipped[reason] for reason in REASONS], device=trainer.strategy.root_device)
        counts: Any = trainer.strategy.reduce(own_counts, reduce_op="sum")
        skipped = Counter(dict(zip(REASONS, counts.tolist(), strict=True)))
        return {
            "train_images": self.size,
            "images_dropped_per_epoch": self.dropped_by(trainer),
            "skipped": dict(+(self.ignored + skipped)),
        }
