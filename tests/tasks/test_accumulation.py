"""Accumulated gradients are the mean over the images of the group, compared with a closed form in float64."""

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sinkablate.tasks.accumulation import MeanOverGroup


class Line(MeanOverGroup):
    """Fits y = w x to y = 0 by its mean square: the gradient of a batch is 2 w mean(x^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
        self.gradients: list[float] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return (self.w * batch).square().mean()

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.w.grad is not None
        self.gradients.append(float(self.w.grad) / float(self.w.detach()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@pytest.mark.parametrize(
    ("batches", "together", "limit"), [(5, 2, 1.0), (5, 3, 1.0), (4, 2, 1.0), (2, 4, 1.0), (6, 4, 5), (3, 1, 1.0)]
)
def test_every_step_has_the_mean_gradient_of_its_images(batches: int, together: int, limit: int | float) -> None:
    images = torch.randn(batches * 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    task = Line()
    trainer = L.Trainer(
        max_epochs=2,
        accumulate_grad_batches=together,
        limit_train_batches=limit,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
        devices=1,
    )
    trainer.fit(task, DataLoader(images, batch_size=8))  # type: ignore[arg-type]
    used = images[: 8 * limit] if isinstance(limit, int) else images
    epoch = [2 * float(part.square().mean()) for part in used.split(8 * together)]
    assert task.gradients == pytest.approx(epoch * 2, rel=1e-14)
