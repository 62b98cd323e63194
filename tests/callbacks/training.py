"""Trains a small model from Python with diagnostics, and compares checkpoints."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from torch import Tensor

from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.data.datamodule import ImageData
from sinkablate.tasks.classify import Classify


def tensors(run_dir: Path) -> dict[str, Tensor]:
    """State dict of the last checkpoint."""
    state: dict[str, Tensor] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def assert_equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


class MeasuredSteps(DummyLogger):
    """Records the steps at which sinks were logged."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int | None] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:  # type: ignore[override]
        if "sink/events" in metrics:
            self.steps.append(step)


def train(root: Path, data: ImageData, task: Classify, batches: int, every: int, **trainer: Any) -> list[int | None]:
    """Train for one epoch of the given number of batches; returns the steps that were measured."""
    logger = MeasuredSteps()
    quiet_trainer(
        root,
        max_epochs=1,
        limit_train_batches=batches,
        logger=logger,
        callbacks=[RunDiagnostics(every, images=4, heatmap=False, per_doubling=0)],
        **{"limit_val_batches": 0} | trainer,
    ).fit(task, datamodule=data)
    return logger.steps


def quiet_trainer(root: Path, **options: Any) -> L.Trainer:
    """A Trainer on the CPU that prints nothing and saves no checkpoints."""
    return L.Trainer(
        default_root_dir=root,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
