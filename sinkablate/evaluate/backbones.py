"""The models that a task reads features from: the evaluated one, and two floors next to it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sinkablate.evaluate.rows import BackboneName
from sinkablate.vit.digest import weights_digest
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.resizing import UNCHANGED, resized

RANDOM_SEED = 0
"""Seed of the weights of the random floor."""
MOST_PIXELS = 32
"""Largest side to which raw pixels are averaged before they are compared as a whole."""


class RawPixels(nn.Module):
    """A backbone whose features are the pixels themselves: the floor that needs no model.

    Args:
        patch_size: Side of a patch in pixels.
    """

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.unfold = nn.Unfold(patch_size, stride=patch_size)  # type: ignore[no-untyped-call]
        self.placed = nn.Parameter(torch.zeros(()), requires_grad=False)  # so that the module has a device

    def pooled(self, images: Tensor) -> Tensor:
        """Return the pixels of images (B, C, H, W), averaged to a side of at most `MOST_PIXELS`, (B, 1, C s s)."""
        height, width = (min(MOST_PIXELS, size) for size in images.shape[-2:])
        return F.adaptive_avg_pool2d(images, (height, width)).flatten(1)[:, None]

    def patches(self, images: Tensor) -> Tensor:
        """Return the pixels of each patch of images (B, C, H, W), in the order of a model's tokens, (B, P, C p p)."""
        columns: Tensor = self.unfold(images)
        return columns.mT


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen model, and what identifies its cached features."""

    name: BackboneName
    model: nn.Module
    """On its device, in eval mode; `RawPixels` for the floor of raw pixels."""
    id: str
    """Hash of the weights and the structure."""

    @property
    def device(self) -> torch.device:
        """The device of the model."""
        return next(self.model.parameters()).device


NO_BACKBONE = Backbone(name="pixels", model=RawPixels(1), id="none")
"""Stands for a backbone where a reading is that of the images alone."""


def backbone_at(backbone: Backbone, size: int | None) -> Backbone:
    """Return a backbone for images of a size, with an interpolated position embedding; None keeps its own size.

    Raises:
        ConfigError: It does not read images of this size.
    """
    if size is None or isinstance(backbone.model, RawPixels):
        return backbone
    model, positions = resized(backbone.model, size)
    return backbone if positions == UNCHANGED else replace(backbone, model=model, id=model_digest(model))


def make_backbone(
    name: BackboneName, model: nn.Module, untrained: Callable[[int], nn.Module], device: torch.device
) -> Backbone:
    """Return the evaluated model or one of its floors.

    Args:
        name: Which of them.
        model: The evaluated model, in eval mode.
        untrained: Makes the same architecture with random weights, from a seed.
        device: Where it runs.
    """
    makers: dict[BackboneName, Callable[[], nn.Module]] = {
        "model": lambda: model,
        "random": lambda: untrained(RANDOM_SEED),
        "pixels": lambda: RawPixels(patch_size_of(model)),
    }
    chosen = makers[name]().to(device).eval()
    return Backbone(name=name, model=chosen, id=model_digest(chosen))


def model_digest(model: nn.Module) -> str:
    """Return a hash of a model's weights, and of the plain attributes of its modules, such as the number of heads."""
    content = hashlib.sha256()
    for name, module in model.named_modules():
        plain = {key: value for key, value in vars(module).items() if isinstance(value, int | float | str | tuple)}
        config = vars(module).get("config")
        content.update(repr((name, type(module).__name__, sorted(plain.items(), key=str), _settings(config))).encode())
    content.update(weights_digest(model).encode())
    return content.hexdigest()


def _settings(config: Any) -> str:
    """Return the settings of a module of this package; the configuration of another library may hold its file names."""
    return repr(config) if type(config).__module__.startswith("sinkablate.") else ""
