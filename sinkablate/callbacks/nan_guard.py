"""Stop a training run whose loss became NaN or infinite."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from sinkablate.callbacks.host_flag import HostFlag
from sinkablate.errors import UserError
from sinkablate.run.directory import NONFINITE
from sinkablate.vit.anatomy import backbone_of


class NanGuard(L.Callback):
    """Stop before a NaN or infinite loss changes the weights, save a checkpoint, and name the step and the module.

    The loss is read after the backward pass was started and before the optimizer's step, so that the device has work
    to do while the host waits for the forward pass.
    """

    def __init__(self) -> None:
        self._images: Tensor | None = None
        self._loss = torch.tensor(0.0)
        self._finite: HostFlag | bool = True

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the images to find the module at fault with."""
        self._images = batch[0]

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Start to check the loss; all ranks come to the same decision."""
        self._loss = loss.detach()
        finite = torch.isfinite(self._loss).all()
        if trainer.world_size > 1:
            finite = trainer.strategy.reduce(finite.float(), reduce_op="min")  # type: ignore[arg-type]
        self._finite = HostFlag(finite)
        if torch.is_anomaly_enabled():  # the backward pass would raise an error that names no step
            self._require_finite(trainer, pl_module)

    def on_after_backward(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop if the loss is NaN or infinite."""
        self._require_finite(trainer, pl_module)

    def _require_finite(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        finite, self._finite = self._finite, True
        if finite:
            return
        culprit = _first_nonfinite(pl_module, self._images)
        path = Path(trainer.default_root_dir) / "checkpoints" / NONFINITE
        trainer.save_checkpoint(path)
        loss = float(self._loss)
        which = "the loss of another rank is NaN or infinite" if math.isfinite(loss) else f"the loss is {loss}"
        raise UserError(
            f"{which} at step {trainer.global_step} ({culprit}); the weights from before the step are in {path}"
        )


def _first_nonfinite(pl_module: L.LightningModule, images: Tensor | None) -> str:
    """Describe the first parameter, or else the first module in execution order, with a value that is not finite."""
    for name, parameter in pl_module.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"parameter {name} is not finite"
    backbone = backbone_of(pl_module)
    if images is None or backbone is None:
        return "every parameter is finite"
    nonfinite: list[str] = []

    def watch(name: str) -> Any:
        def hook(_: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                nonfinite.append(name)

        return hook

    handles = [m.register_forward_hook(watch(n)) for n, m in backbone.named_modules(prefix="backbone")]
    try:
        with torch.no_grad():
            backbone(images.flatten(0, 1) if images.dim() == 5 else images)  # several views of each image
    finally:
        for handle in handles:
            handle.remove()
    if not torch.isfinite(images).all():  # checked last: all ranks of a sharded model must run it, or none
        return "the images are not finite"
    return f"first in the output of {nonfinite[0]}" if nonfinite else "every parameter and output is finite"
