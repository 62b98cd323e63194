"""Gradient accumulation when the batches of an epoch do not divide into whole groups."""

from typing import Any

import lightning as L
from torch import Tensor


class MeanOverGroup(L.LightningModule):
    """A task whose optimizer steps follow the mean gradient over the batches that they really have.

    Lightning divides every batch's loss by `accumulate_grad_batches`, also in the last group of an epoch, which may
    have fewer batches: its gradient would be too small by that share.
    """

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Backpropagate a loss that Lightning has divided by the number of batches of a whole group."""
        loop, whole = self.trainer.fit_loop, self.trainer.accumulate_grad_batches
        first = loop.batch_idx // whole * whole
        there = min(whole, self.trainer.num_training_batches - first)
        super().backward(loss if there == whole else loss * (whole / there), *args, **kwargs)
