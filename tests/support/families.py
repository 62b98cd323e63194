"""Small untrained models of timm's families, with all parameters moved away from their neutral initial values."""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from variants import noise, perturbed

from sinkablate.vit.tokens import TokenLayout

FAMILIES: dict[str, tuple[int, TokenLayout]] = {
    "vit_tiny_patch16_224": (64, TokenLayout(1, 0, 16)),
    "vit_small_patch14_dinov2": (56, TokenLayout(1, 0, 16)),
    "vit_small_patch14_reg4_dinov2": (56, TokenLayout(1, 4, 16)),
    "vit_base_patch16_clip_224": (48, TokenLayout(1, 0, 9)),
    "vit_base_patch16_siglip_224": (48, TokenLayout(0, 0, 9)),
    "deit3_small_patch16_224": (64, TokenLayout(1, 0, 16)),
    "deit_tiny_distilled_patch16_224": (64, TokenLayout(2, 0, 16)),
    "beit_base_patch16_224": (48, TokenLayout(1, 0, 9)),
    "eva02_tiny_patch14_224": (56, TokenLayout(1, 0, 16)),
    "eva_giant_patch14_224": (42, TokenLayout(1, 0, 9)),
    "vit_small_patch16_dinov3": (64, TokenLayout(1, 4, 16)),
}
"""Name in timm -> image side length, and the token layout at that size."""


def family(name: str, **fields: Any) -> Any:
    """Build a model of two blocks in eval mode with random biases, norms, LayerScale and relative positions."""
    torch.manual_seed(0)
    model = perturbed(timm.create_model(name, num_classes=0, img_size=FAMILIES[name][0], **{"depth": 2, **fields}))
    with torch.no_grad():
        for module in model.modules():
            table = getattr(module, "relative_position_bias_table", None)
            if table is not None:
                table.copy_(noise(*table.shape))
    return model.eval()


def pictures(model: Any, count: int = 2) -> Tensor:
    """Random images of the input shape of a model."""
    side = model.patch_embed.img_size[0]
    return noise(count, model.patch_embed.proj.in_channels, side, side)


def hook_count(model: nn.Module) -> int:
    """Number of forward hooks and pre-hooks of all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
