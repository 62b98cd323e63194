"""Self-supervised training with LeJEPA and an online probe."""

from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from sinkablate.config import BackboneConfig, CommonModeConfig, ImageSize, LeJepaConfig, OptimConfig
from sinkablate.distributed.batch_norm import SyncBatchNorm1d
from sinkablate.errors import UserError
from sinkablate.tasks.checkpoint import refuse_another_run
from sinkablate.tasks.common_mode import CommonModePenalty
from sinkablate.tasks.image_task import Batch, ImageTask, backbone_keys
from sinkablate.tasks.optim import learning_rate, optimizer_and_schedule
from sinkablate.tasks.sigreg import directions, effective_rank, invariance, sigreg
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import resolved
from sinkablate.vit.portable import stored_backbone


class LeJepa(ImageTask):
    """Trains a vision transformer without labels, and an online linear probe on its detached features.

    Args:
        backbone: The model and the changes made to it.
        lejepa: Objective, projector and probe.
        optim: Optimizer and schedule.
        common_mode: Penalty on the part of attention's updates that all tokens of a view have in common.
        compile: Train with `torch.compile`; measurements and checkpoints use the uncompiled model.
        num_classes: Number of classes of the probe; set from data.source.num_classes.
        in_chans: Set from data.image.in_chans.
        img_size: Set from data.image.size.
        seed: Set from seed_everything.
    """

    def __init__(
        self,
        backbone: BackboneConfig = BackboneConfig(),
        lejepa: LeJepaConfig = LeJepaConfig(),
        optim: OptimConfig = OptimConfig(),
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
        shape: dict[str, Any] = {"num_classes": 0, "in_chans": in_chans, "img_size": img_size}
        self.save_hyperparameters(
            {
                "backbone": asdict(stored),
                "lejepa": asdict(lejepa),
                "optim": asdict(optim),
                "common_mode": asdict(common_mode),
                **shape,
                "probe_classes": num_classes,
                "seed": seed,
            },
            logger=False,
        )
        self.config, self.optim_config, self.seed = lejepa, optim, seed
        with backbone_keys():
            model: Any = build_backbone(backbone, **shape, seed=seed)
        self.backbone, width = model, int(model.num_features)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projector = projector(width, lejepa)
            self.probe = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))
        if common_mode.weight and lejepa.probe_only:
            raise UserError(
                f"model.common_mode.weight={common_mode.weight} has no effect with model.lejepa.probe_only=true, "
                "which trains the probe alone"
            )
        self.common_mode = CommonModePenalty(self.backbone, common_mode) if common_mode.weight else None
        if compile:
            self.backbone.compile()
        if lejepa.probe_only:
            self.backbone.requires_grad_(False)
            self.projector.requires_grad_(False)
        self.moments: Any = Moments(width)

    def parts(self) -> list[nn.Module]:
        """Return the model and its two heads."""
        return [self.backbone, self.projector, self.probe]

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits of the probe (B, num_classes)."""
        features = self.evaluated(self.backbone)(images)
        logits: Tensor = self.evaluated(self.probe)(features.detach())
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the objective on the views (B, V, C, H, W) of a batch, plus the loss of the probe."""
        images, targets, _ = batch
        views = images.shape[1]
        features = self.backbone(images.flatten(0, 1))
        z = self.projector(features)
        z = z.to(torch.promote_types(z.dtype, torch.float32))
        step = f"{self.current_epoch}/{batch_idx}"
        regular = sigreg(
            z, directions(self.seed, step, self.config.num_slices, z.shape[-1]), all_ranks=self.config.all_ranks
        )
        same = invariance(z.unflatten(0, (-1, views)))
        probe = F.cross_entropy(self.probe(features.detach()), targets.repeat_interleave(views))
        loss = self.config.lamb * regular + (1 - self.config.lamb) * same
        numbers = {"train/sigreg": regular, "train/invariance": same, "train/probe_loss": probe}
        if self.common_mode is not None:
            numbers["train/common_mode"] = share = self.common_mode.take()
            loss = loss + self.common_mode.weight * share
        numbers["train/loss"] = loss
        self.log_dict(numbers, batch_size=len(images), sync_dist=self.trainer.world_size > 1)
        self.log("lr", learning_rate(self.trainer.optimizers[0], 0, self.device), batch_size=len(images))
        return probe if self.config.probe_only else loss + probe

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Update the accuracy of the probe and the moments of the features."""
        super().validation_step(batch, batch_idx)
        self.moments.update(self.evaluated(self.backbone)(batch[0]))

    def on_validation_epoch_end(self) -> None:
        """Log the effective rank of the features over the whole validation set."""
        self.log("val/effective_rank", effective_rank(self.moments.compute()).float())
        self.moments.reset()

    def check_data(self, data: Any, processes: int) -> None:
        """Refuse data with fewer than two views per image."""
        views = getattr(data, "views", None)
        if views is None or views.count < 2:
            count = getattr(views, "count", 1)
            raise UserError(
                f"data.views.count={count}: task=lejepa compares views of the same image, and needs at least 2"
            )

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule, with separate parameter groups for the projector and the probe."""
        config, probe = self.optim_config, self.config
        matrices, vectors = ([p for p in self.projector.parameters() if (p.ndim > 1) is wide] for wide in (True, False))
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": config.weight_decay if config.decay == "all" else 0.0},
            {"params": list(self.probe.parameters()), "lr": probe.probe_lr, "weight_decay": probe.probe_weight_decay},
        ]
        return optimizer_and_schedule(self.backbone, config, self.trainer, groups)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradients, without those of the probe if `lejepa.clip_probe` is false."""
        parameters = [] if self.config.clip_probe else list(self.probe.parameters())
        gradients = [parameter.grad for parameter in parameters]
        for parameter in parameters:
            parameter.grad = None
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model or, when training is resumed, with other settings."""
        refuse_another_run(self, checkpoint, ("lejepa",))


class Moments(Metric):
    """Computes the covariance (D, D) of features over the batches of all ranks, in float64."""

    full_state_update = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.set_dtype(torch.float64)
        for name, shape in {"count": (), "total": (width,), "squares": (width, width)}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Tensor) -> None:
        """Add a batch of features (B, D)."""
        features = features.double()
        self.count += len(features)
        self.total += features.sum(0)
        self.squares += features.mT @ features

    def compute(self) -> Tensor:
        """Return the covariance (D, D)."""
        mean = self.total / self.count
        return self.squares / self.count - torch.outer(mean, mean)


def projector(width: int, config: LeJepaConfig) -> nn.Sequential:
    """Return the projector D -> proj_hidden_dim -> proj_hidden_dim -> proj_dim, with batch norm and ReLU in between."""
    norm = SyncBatchNorm1d if config.all_ranks else nn.BatchNorm1d
    layers: list[nn.Module] = []
    for in_features in (width, config.proj_hidden_dim):
        layers += [nn.Linear(in_features, config.proj_hidden_dim), norm(config.proj_hidden_dim), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(config.proj_hidden_dim, config.proj_dim))
