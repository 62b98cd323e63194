"""Supervised image classification."""

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, SoftTargetCrossEntropy
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from sinkablate.config import (
    BackboneConfig,
    CommonModeConfig,
    EmaConfig,
    ImageSize,
    LossConfig,
    OptimConfig,
    RetrofitConfig,
)
from sinkablate.errors import UserError
from sinkablate.tasks.checkpoint import refuse_another_run
from sinkablate.tasks.common_mode import CommonModePenalty
from sinkablate.tasks.image_task import Batch, ImageTask, backbone_keys
from sinkablate.tasks.optim import learning_rate, optimizer_and_schedule
from sinkablate.tasks.retrofit import SelfDistillation
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import resolved
from sinkablate.vit.portable import stored_backbone


class Classify(ImageTask):
    """Trains a vision transformer to classify images.

    Args:
        backbone: The model and the changes made to it.
        optim: Optimizer and schedule.
        loss: Loss and label mixing.
        retrofit: Training of what was added to pretrained weights, and self-distillation from the unchanged model.
        ema: Moving average of the weights, which validation uses if it is enabled.
        common_mode: Penalty on the part of attention's updates that all tokens have in common.
        compile: Train with `torch.compile`; measurements and checkpoints use the uncompiled model.
        num_classes: Set from data.source.num_classes.
        in_chans: Set from data.image.in_chans.
        img_size: Set from data.image.size.
        seed: Set from seed_everything.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),
        optim: OptimConfig = OptimConfig(),
        loss: LossConfig = LossConfig(),
        retrofit: RetrofitConfig = RetrofitConfig(),
        ema: EmaConfig = EmaConfig(),
        common_mode: CommonModeConfig = CommonModeConfig(),
        compile: bool = False,
        num_classes: int = 10,
        in_chans: int = 1,
        img_size: ImageSize = 28,
        seed: int = 0,
    ) -> None:
        with backbone_keys():
            backbone = resolved(backbone)
            stored = stored_backbone(backbone)
        super().__init__(backbone, num_classes, img_size)
        shape: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}
        self.save_hyperparameters(
            {
                "backbone": asdict(stored),
                "optim": asdict(optim),
                "loss": asdict(loss),
                "retrofit": asdict(retrofit),
                "ema": asdict(ema),
                "common_mode": asdict(common_mode),
                **shape,
                "seed": seed,
            },
            logger=False,
        )
        self.optim_config = optim
        self.loss_config = loss
        self.retrofit_config = retrofit
        self.distillation: SelfDistillation | None = None
        self.seed = seed
        with backbone_keys():
            self.backbone = build_backbone(backbone, **shape, seed=seed)
        self.ema = ModelEmaV3(self.backbone, ema.decay, use_warmup=ema.warmup) if ema.decay else None
        if self.ema is not None:
            self.ema.requires_grad_(False)  # DDP would wait for gradients of these parameters
        self.common_mode = CommonModePenalty(self.backbone, common_mode) if common_mode.weight else None
        if compile:
            self.backbone.compile()  # in place, so that parameters keep their names
        self.mixup = _mixup(loss, num_classes) if loss.mixes else None
        self.criterion = _criterion(loss)

    def parts(self) -> list[nn.Module]:
        """Return the model and its moving average, if there is one."""
        return [self.backbone, *([self.ema.module] if self.ema is not None else [])]

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits (B, num_classes); in evaluation mode, those of the averaged weights if there are any."""
        model = self.backbone if self.ema is None or self.training else self.ema.module
        logits: Tensor = self.evaluated(model)(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute and log the loss of a batch."""
        images, targets, _ = batch
        if self.mixup is not None:
            images, targets = self._mix(images, targets, batch_idx)
        loss: Tensor = self.criterion(self(images), targets)
        if self.distillation is not None:
            parts = self.distillation.losses(images)
            loss = loss + torch.stack(list(parts.values())).sum()
            numbers = {f"train/{name}": part for name, part in parts.items()}
            self.log_dict(numbers, batch_size=len(images), sync_dist=self.trainer.world_size > 1)
        if self.common_mode is not None:
            share = self.common_mode.take()
            loss = loss + self.common_mode.weight * share
            self.log("train/common_mode", share, batch_size=len(images), sync_dist=self.trainer.world_size > 1)
        self.log("train/loss", loss, batch_size=len(images), sync_dist=self.trainer.world_size > 1)
        self.log("lr", learning_rate(self.trainer.optimizers[0], -1, self.device), batch_size=len(images))
        return loss

    def setup(self, stage: str) -> None:
        """Build the unchanged model for self-distillation, which is part of neither this module nor its checkpoints."""
        super().setup(stage)
        if stage == "fit" and self.retrofit_config.distills:
            self.distillation = SelfDistillation(self.backbone, self.retrofit_config)

    def on_fit_start(self) -> None:
        """Move the unchanged model to the device of the backbone."""
        if self.distillation is not None:
            self.distillation.to(next(self.backbone.parameters()))

    def on_after_backward(self) -> None:
        """Drop the gradients of pretrained parameters while only what was added is trained."""
        if self.global_step < self.retrofit_config.added_steps:
            for group in self.trainer.optimizers[0].param_groups:
                for parameter in group["params"] if not group["added"] else ():
                    parameter.grad = None

    def _mix(self, images: Tensor, targets: Tensor, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Apply mixup or cutmix, seeded by (seed, epoch, batch, rank), so that a resumed run mixes in the same way."""
        state = np.random.get_state()  # timm draws from the global generator
        entropy = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        np.random.seed(np.random.SeedSequence(entropy).generate_state(1))
        try:
            mixed: tuple[Tensor, Tensor] = self.mixup(images, targets)  # type: ignore[misc]
        finally:
            np.random.set_state(state)
        return mixed

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Update the average together with the step, so that no checkpoint is written between the two."""
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.backbone, step=self.global_step + 1)

    def check_data(self, data: Any, processes: int) -> None:
        """Refuse multiple views of an image, and batches that cannot be mixed."""
        views = getattr(data, "views", None)
        if views is not None and views.count > 1:
            raise UserError(
                f"data.views.count={views.count}: task=classify trains on one view of each image; "
                "use data.augment.aug_repeats for repeated augmentation"
            )
        batch = getattr(data, "batch_size", 0)
        if self.mixup is not None and batch // processes % 2:
            raise UserError(
                f"data.batch_size={batch}: model.loss.mixup and cutmix mix pairs of images, so each of the "
                f"{processes} processes needs an even number of images"
            )

    def configure_optimizers(self) -> Any:
        """Return the optimizer and the schedule."""
        return optimizer_and_schedule(self.backbone, self.optim_config, self.trainer, retrofit=self.retrofit_config)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model or, when training is resumed, with other settings."""
        refuse_another_run(self, checkpoint, ("ema",))


def _mixup(loss: LossConfig, num_classes: int) -> Mixup:
    """Return timm's mixup and cutmix."""
    return Mixup(
        mixup_alpha=loss.mixup,
        cutmix_alpha=loss.cutmix,
        prob=loss.mixup_prob,
        switch_prob=loss.mixup_switch_prob,
        mode=loss.mixup_mode,
        label_smoothing=loss.smoothing,
        num_classes=num_classes,
    )


def _criterion(loss: LossConfig) -> nn.Module:
    """Return timm's loss for these settings; mixed labels are already smoothed."""
    if loss.bce_loss:
        return BinaryCrossEntropy(smoothing=0.0 if loss.mixes else loss.smoothing)
    return SoftTargetCrossEntropy() if loss.mixes else nn.CrossEntropyLoss(label_smoothing=loss.smoothing)
