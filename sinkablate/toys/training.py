"""The LightningModule of the toy tasks."""

from dataclasses import asdict
from typing import Any

import polars as pl
import torch.nn.functional as F
from torch import Tensor

from sinkablate.config import CommonModeConfig, OptimConfig, ToyConfig, build, flat, keys_below
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.errors import UserError
from sinkablate.tasks.accumulation import MeanOverGroup
from sinkablate.tasks.checkpoint import refuse_another, training_keys
from sinkablate.tasks.common_mode import CommonModePenalty
from sinkablate.tasks.optim import learning_rate, optimizer_and_schedule
from sinkablate.toys.data import Batch
from sinkablate.toys.measures import measures, verdicts
from sinkablate.toys.model import build_toy
from sinkablate.toys.tasks import ToyTask

KERNEL = "model.toy.attention.kernel"
"""A key that may differ from that of the checkpoint, as it changes no result."""


class ToyTraining(MeanOverGroup):
    """Trains a small transformer on one of the toy tasks.

    Args:
        toy: The task and the mechanism.
        optim: Optimizer and schedule.
        common_mode: Penalty on the part of attention's updates that all tokens have in common.
        seed: Set from seed_everything.
    """

    def __init__(
        self,
        toy: ToyConfig = ToyConfig(),
        optim: OptimConfig = OptimConfig(),
        common_mode: CommonModeConfig = CommonModeConfig(),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(
            {"toy": asdict(toy), "optim": asdict(optim), "common_mode": asdict(common_mode), "seed": seed}, logger=False
        )
        self.toy, self.optim_config = toy, optim
        self.task = ToyTask.draw(toy, seed)
        with keys_below("model.toy"):
            self.backbone = build_toy(toy, seed)
        self.common_mode = CommonModePenalty(self.backbone, common_mode) if common_mode.weight else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the outputs (B, N, D) of tokens (B, N, D)."""
        outputs: Tensor = self.backbone(tokens)
        return outputs

    def _loss(self, tokens: Tensor) -> Tensor:
        return F.mse_loss(self.task.prediction(tokens, self(tokens)), self.task.target(tokens))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the mean squared error of a batch, plus the penalty if there is one."""
        loss = self._loss(batch[0])
        if self.common_mode is not None:
            share = self.common_mode.take()
            loss = loss + self.common_mode.weight * share
            self.log("train/common_mode", share, batch_size=len(batch[0]))
        self.log("train/loss", loss, batch_size=len(batch[0]))
        self.log("lr", learning_rate(self.trainer.optimizers[0], -1, self.device), batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the error of the task and the measures of the sink."""
        self.log_dict(self._evaluate(batch[0]), batch_size=len(batch[0]))

    test_step = validation_step

    def _evaluate(self, tokens: Tensor) -> dict[str, float]:
        return {"val/loss": float(self._loss(tokens))} | measures(self.backbone, self.task, tokens)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Evaluate after the early steps of the data module that do not end an epoch, with the same scalars."""
        data, step = self.trainer.datamodule, self.trainer.global_step  # type: ignore[attr-defined]
        ends_step = (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0
        if ends_step and not self.trainer.is_last_batch and step in data.early_steps:
            ((tokens,),) = data.val_dataloader()
            with measurement_mode(self.backbone):
                numbers = self._evaluate(tokens.to(self.device))
            for logger in self.trainer.loggers:
                logger.log_metrics(numbers, step=step - 1)  # as Lightning counts the steps of evaluations, from 0

    def findings(self, history: pl.DataFrame) -> dict[str, Any]:
        """Return what the summary of a run adds to the last metrics, from the rows of `metrics.csv`.

        `toy/label` names the label of the sink's block, or those of both heads of a mixed toy. `toy/formed_step` is the
        step of the first evaluation at which one of them has a label, or None.
        """
        rows = history.filter(pl.col("toy/mass").is_not_null()).sort("step").to_dicts()
        labels = [sorted(verdicts(row)) for row in rows]
        formed = (row["step"] for row, names in zip(rows, labels, strict=True) if set(names) != {"none"})
        return {"toy/label": " + ".join(labels[-1]), "toy/task": self.toy.task, "toy/formed_step": next(formed, None)}

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the schedule."""
        return optimizer_and_schedule(self.backbone, self.optim_config, self.trainer)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another toy or, when training is resumed, with other settings."""
        saved = checkpoint.get("hyper_parameters", {}).get("toy")
        if saved is None:
            raise UserError("the checkpoint belongs to another task: it has no model.toy")
        saved, now = (flat(asdict(toy), "model.toy.") for toy in (build(ToyConfig, saved), self.toy))
        refuse_another(saved, now | {KERNEL: saved[KERNEL]})
        if self._trainer is not None and self._trainer.training:
            refuse_another(*(training_keys(h) for h in (checkpoint["hyper_parameters"], self.hparams)))
