"""What every task on labelled images does outside of training: evaluate, predict, refuse another model's checkpoint."""

from typing import Any

import lightning as L
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError

Batch = tuple[Tensor, Tensor, list[str]]
"""Images (B, C, H, W), labels (B,), keys."""


class ImageTask(L.LightningModule):
    """A task whose `forward` gives class logits (B, num_classes).

    Args:
        backbone: The model, for its own idea of an image size.
        num_classes: Classes that are told apart.
        img_size: Side of the data's images in pixels.

    Raises:
        UserError: The two sizes differ.
    """

    def __init__(self, backbone: BackboneConfig, num_classes: int, img_size: int) -> None:
        super().__init__()
        if backbone.img_size not in (None, img_size):
            raise UserError(f"model.backbone.img_size={backbone.img_size} differs from data.image.size={img_size}")
        self.val_metrics, self.test_metrics = (nn.ModuleDict({
            "acc1": MulticlassAccuracy(num_classes, top_k=1, average="micro"),
            "acc5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
            "loss": MeanMetric(),
        }) for _ in range(2))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and cross-entropy on the validation images."""
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Accuracy and cross-entropy on the test images."""
        self._evaluate(batch, self.test_metrics, "test")

    def _evaluate(self, batch: Batch, metrics: nn.ModuleDict, stage: str) -> None:
        images, targets, _ = batch
        logits = self(images).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        for name, metric in metrics.items():
            metric.update(*((losses,) if name == "loss" else (logits, targets)))  # type: ignore[operator]
        for name, metric in metrics.items():
            self.log(f"{stage}/{name}", metric, prog_bar=name == "acc1", batch_size=len(images))

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Keys, labels and class probabilities (B, num_classes)."""
        images, targets, keys = batch
        return {"key": keys, "label": targets, "probability": self(images).float().softmax(dim=-1)}
