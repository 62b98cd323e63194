"""The base class of tasks on labeled images: evaluation, prediction and sharding."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch.nn.functional as F
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width, keys_below, size_value
from sinkablate.distributed.sharding import shard, unshard
from sinkablate.errors import UserError
from sinkablate.tasks.accumulation import MeanOverGroup

Batch = tuple[Tensor, Tensor, list[str]]
"""Images (B, C, H, W), labels (B,), keys."""


@contextmanager
def backbone_keys() -> Iterator[None]:
    """Name the full keys in config errors of the backbone; its image size comes from `data.image.size`."""
    try:
        with keys_below("model.backbone"):
            yield
    except ConfigError as error:
        raise ConfigError(str(error).replace("model.backbone.img_size=", "data.image.size=")) from error


class ImageTask(MeanOverGroup):
    """A task whose `forward` returns class logits (B, num_classes).

    Args:
        backbone: The model's configuration, to check its image size.
        num_classes: Number of classes.
        img_size: Size of the images.

    Raises:
        UserError: The image size of the model differs from that of the data.
    """

    def __init__(self, backbone: BackboneConfig, num_classes: int, img_size: ImageSize) -> None:
        super().__init__()
        if height_and_width(backbone.img_size or img_size) != height_and_width(img_size):
            raise UserError(
                f"model.backbone.img_size={size_value(backbone.img_size or img_size)} differs from "
                f"data.image.size={size_value(img_size)}"
            )
        self.val_metrics, self.test_metrics = (
            nn.ModuleDict(
                {
                    "acc1": MulticlassAccuracy(num_classes, top_k=1, average="micro"),
                    "acc5": MulticlassAccuracy(num_classes, top_k=min(5, num_classes), average="micro"),
                    "loss": MeanMetric(),
                }
            )
            for _ in range(2)
        )
        self._copies: dict[nn.Module, nn.Module] = {}

    @abstractmethod
    def parts(self) -> list[nn.Module]:
        """Return the modules that hold the parameters. Each must be run by calling it, for sharding to work."""

    @abstractmethod
    def check_data(self, data: Any, processes: int) -> None:
        """Refuse data that the task cannot be trained on, judged by the options of the data module.

        Args:
            data: The data module.
            processes: Number of processes that train together.

        Raises:
            UserError: Names the key.
        """

    def setup(self, stage: str) -> None:
        """Check the data before any file is written."""
        if stage == "fit":
            self.check_data(self.trainer.datamodule, self.trainer.world_size)  # type: ignore[attr-defined]

    def configure_model(self) -> None:
        """Shard the modules across ranks if the strategy is fsdp2."""
        if self.device_mesh is not None and self.trainer.state.fn == TrainerFn.FITTING:
            for part in self.parts():
                shard(part, self.device_mesh["data_parallel"], list(getattr(part, "blocks", ())))

    def on_validation_start(self) -> None:
        """Gather sharded modules once, because ranks may have different numbers of batches and must not wait in one."""
        self._copies = {part: copy.eval() for part in self.parts() if (copy := unshard(part)) is not part}

    def on_validation_end(self) -> None:
        """Release the gathered copies."""
        self._copies = {}

    def evaluated(self, part: nn.Module) -> nn.Module:
        """Return the module, or its gathered copy during an evaluation."""
        return self._copies.get(part, part)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update accuracy and cross-entropy on the validation images."""
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Update accuracy and cross-entropy on the test images."""
        self._evaluate(batch, self.test_metrics, "test")

    def _evaluate(self, batch: Batch, metrics: nn.ModuleDict, stage: str) -> None:
        images, targets, _ = batch
        logits = self(images).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        for name, metric in metrics.items():
            metric.update(*((losses,) if name == "loss" else (logits, targets)))  # type: ignore[operator]
        for name, metric in metrics.items():
            self.log(f"{stage}/{name}", metric, batch_size=len(images))

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Return the keys, labels and class probabilities (B, num_classes) of a batch."""
        images, targets, keys = batch
        return {"key": keys, "label": targets, "probability": self(images).float().softmax(dim=-1)}
