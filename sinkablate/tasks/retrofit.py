"""Train what was added to pretrained weights, at first alone, and distill the unchanged model into the changed one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkablate.config import RetrofitConfig
from sinkablate.errors import UserError
from sinkablate.vit.additions import Additions, additions_of


def require_additions(model: nn.Module, key: str) -> Additions:
    """Return what was added to the pretrained weights of a backbone.

    Args:
        model: The backbone.
        key: The setting that needs it, for the message.

    Raises:
        UserError: The weights are random or those of a run, or the model cannot be changed.
    """
    additions = additions_of(model)
    if additions is None:
        raise UserError(
            f"{key} needs the pretrained weights of a plain timm ViT, to which something is added; use "
            "--model.backbone.pretrained true or --model.backbone.checkpoint FILE"
        )
    return additions


def added_parameters(model: nn.Module) -> list[str]:
    """Return the names of the trainable parameters of a backbone that did not come with its pretrained weights.

    Raises:
        UserError: There are none.
    """
    additions = require_additions(model, "model.retrofit.added_steps")
    added = [name for name, p in model.named_parameters() if p.requires_grad and name in additions.parameters]
    if not added:
        raise UserError(
            "model.retrofit.added_steps: nothing was added to the pretrained weights that could be trained alone; "
            "add a gate, registers, a sink or a pathway"
        )
    return added


def cls_loss(cls: Tensor, target: Tensor) -> Tensor:
    """Return 1 - cos of class tokens (B, D), averaged over the batch."""
    return (1 - F.cosine_similarity(cls, target, dim=-1)).mean()


def patch_loss(patches: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared difference of patch tokens (B, N, D) divided by the mean square of the target.

    It is the square of the drift of the patches over the batch (`sinkablate.vit.drift`).
    """
    return (patches - target).square().mean() / target.square().mean()


class SelfDistillation:
    """Compares the final tokens of a training pass with those of the unchanged model on the same images.

    Args:
        backbone: A timm ViT with mechanisms that were added to pretrained weights. In training mode, its final tokens
            are kept. Pooling and the classifier send no gradients to them, unless labels train the backbone.
        config: The weights of the losses.

    Raises:
        UserError: The weights of the backbone are not pretrained, or nothing was added that could differ.
    """

    def __init__(self, backbone: Any, config: RetrofitConfig) -> None:
        additions = require_additions(backbone, "model.retrofit: self-distillation")
        if not additions.names and not config.labels_train_backbone:
            raise UserError(
                "model.retrofit: self-distillation has no effect on an unchanged model; add a gate, registers, a sink "
                "or a pathway, or set labels_train_backbone=true"
            )
        self.config = config
        self._backbone = backbone
        self._teacher: Any = additions.unchanged().eval().requires_grad_(False)
        self._tokens: list[Tensor] = []
        kept = self._tokens  # not `self`, because a moving average copies the backbone together with its hooks

        def keep(module: nn.Module, _: Any, tokens: Tensor) -> Tensor:
            if not module.training:
                return tokens
            kept[:] = [tokens]
            return tokens if config.labels_train_backbone else tokens.detach()

        backbone.norm.register_forward_hook(keep)

    def to(self, parameter: Tensor) -> None:
        """Move the unchanged model to the device and the dtype of a parameter."""
        self._teacher.to(parameter)

    def losses(self, images: Tensor) -> dict[str, Tensor]:
        """Return the weighted losses of the last pass of the backbone, by name.

        Args:
            images: The images of that pass, (B, C, H, W).
        """
        with torch.no_grad():
            target = self._teacher.forward_features(images).float()
        tokens, self._tokens[:] = self._tokens[0].float(), []
        cls, patches = _pooled_and_patches(self._backbone, tokens)
        target_cls, target_patches = _pooled_and_patches(self._teacher, target)
        losses = {
            "distill_cls": (self.config.cls_weight, cls_loss(cls, target_cls)),
            "distill_patches": (self.config.patch_weight, patch_loss(patches, target_patches)),
        }
        return {name: weight * loss for name, (weight, loss) in losses.items() if weight}


def _pooled_and_patches(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return the CLS token (B, D), or else the mean of the patches, and the patches (B, N, D)."""
    patches = tokens[:, model.num_prefix_tokens :]
    return tokens[:, 0] if model.has_class_token else patches.mean(1), patches
