"""Models of shipped configs without a training, as `export` reads them from runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from running import CONFIGS
from torch import Tensor, nn
from variants import noise, perturbed

from sinkablate.config import BackboneConfig, ImageConfig, build
from sinkablate.config.checks import with_tuples
from sinkablate.export.trained import TrainedModel
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.hub_folder import ExportedModel

GRAY, COLOR = ImageConfig(), ImageConfig(size=32, in_chans=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), crop_pct=0.9)


def untrained(
    backbone: BackboneConfig, image: ImageConfig = GRAY, num_classes: int = 10, **fields: Any
) -> TrainedModel:
    """Build the model of a run, with all parameters changed so that none is neutral."""
    shape = {"num_classes": num_classes, "in_chans": image.in_chans, "img_size": image.size}
    values: dict[str, Any] = {
        "model": perturbed(build_backbone(backbone, **shape)).eval(),
        "description": ExportedModel(backbone=replace(backbone, checkpoint=None), image=image, **shape),
        "variant": "test",
        "step": 3,
        "averaged": False,
        "state": "finished",
        "initial": "",
        "classes": (),
        "config": {},
        "summary": {},
        "evaluation": {},
    }
    return TrainedModel(**values | fields)


def images_for(backbone: BackboneConfig) -> ImageConfig:
    """Return small images that the model divides into patches."""
    return GRAY if backbone.name == "vit_mini" else replace(COLOR, size=28) if "patch14" in backbone.name else COLOR


def shipped(path: Path) -> BackboneConfig:
    """Return the backbone of a shipped config, with at most two blocks if it is large."""
    values = yaml.safe_load(path.read_text()).get("model", {}).get("backbone", {})
    small = {} if values.get("name", "vit_mini") == "vit_mini" else {"depth": 2}
    backbone: BackboneConfig = build(BackboneConfig, with_tuples(values | small))
    return backbone


SHIPPED = {str(path.relative_to(CONFIGS)): path for path in sorted(CONFIGS.glob("*.yaml"))} | {
    str(path.relative_to(CONFIGS)): path for path in sorted((CONFIGS / "recipe").glob("*.yaml"))
}
"""Configs of vision transformers: all but toys, data and sizes."""


@torch.no_grad()
def outputs(model: nn.Module, trained: TrainedModel) -> tuple[Tensor, Tensor]:
    """Return images (2, C, H, W), in the dtype of a model, and its output for them."""
    images = noise(2, *trained.shape, seed=5).to(next(model.parameters()))
    return images, model.eval()(images)
