"""Gradient accumulation for epochs whose number of batches is not a multiple of the group size."""

from typing import Any

import lightning as L
from torch import Tensor


class MeanOverGroup(L.LightningModule):
    """A task whose optimizer steps use the mean gradient over the batches that are actually accumulated.

    Lightning divides the loss of every batch by `accumulate_grad_batches`, even in the last group of an epoch, which
    may have fewer batches and whose gradient would then be too small.
    """

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate a loss that Lightning has divided by the number of batches of a full group."""
        loop, full_size = self.trainer.fit_loop, self.trainer.accumulate_grad_batches
        first = loop.batch_idx // full_size * full_size
        size = min(full_size, self.trainer.num_training_batches - first)
        super().backward(loss if size == full_size else loss * (full_size / size), *args, **kwargs)
