"""What a training does not see of its data: images that fill no batch, files that are not images, what is skipped."""

from collections import Counter
from typing import Any, NamedTuple

import lightning as L
import torch

from sinkablate.data.files import said
from sinkablate.data.layout import REASONS


class Account(NamedTuple):
    """The numbers of one process."""

    size: int
    """Training images."""
    batch_size: int
    repeats: int
    """How often an image occurs in an epoch."""
    passed_over: "Counter[str]"
    """Files that were not taken for images, by reason."""
    skipped: "Counter[str]"
    """Samples and shards that could not be read, by reason; each time that it was their turn."""

    @property
    def dropped(self) -> int:
        """Training images that an epoch leaves out because the batch size does not divide their number."""
        return self.size - -(-(self.size // self.batch_size * self.batch_size) // self.repeats)

    def notes(self) -> list[str]:
        """Lines that a user should read before training begins."""
        lines = []
        if self.dropped:
            lines.append(
                f"data: each epoch leaves out {self.dropped:,} of the {self.size:,} training images, a "
                f"different set each time (batches of data.batch_size={self.batch_size})"
            )
        if self.passed_over:
            lines.append(f"data: not read: {said(self.passed_over)}")
        return lines

    def summary(self, trainer: L.Trainer) -> dict[str, Any]:
        """What `summary.json` says of the data of all processes; every one of them must call it."""
        mine = torch.tensor([self.skipped[reason] for reason in REASONS], device=trainer.strategy.root_device)
        counts: Any = trainer.strategy.reduce(mine, reduce_op="sum")
        skipped = Counter(dict(zip(REASONS, counts.tolist(), strict=True)))
        return {
            "train_images": self.size,
            "images_dropped_per_epoch": self.dropped,
            "skipped": dict(+(self.passed_over + skipped)),
        }
