"""Small untrained models of timm's families, with nothing left at a neutral start."""

from typing import Any

import timm
import torch
from torch import Tensor, nn
from variants import livelier, noise

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
"""timm's name -> image side and the sequence its blocks see there."""


def family(name: str, **fields: Any) -> Any:
    """Two blocks in eval mode; biases, norms, LayerScale and relative positions are random."""
    torch.manual_seed(0)
    model = livelier(timm.create_model(name, num_classes=0, img_size=FAMILIES[name][0], **{"depth": 2, **fields}))
    with torch.no_grad():
        for module in model.modules():
            table = getattr(module, "relative_position_bias_table", None)
            if table is not None:
                table.copy_(noise(*table.shape))
    return model.eval()


def pictures(model: Any, count: int = 2) -> Tensor:
    """Noise of the model's input shape."""
    side = model.patch_embed.img_size[0]
    return noise(count, model.patch_embed.proj.in_channels, side, side)


def hook_count(model: nn.Module) -> int:
    """Forward hooks and pre-hooks on all modules."""
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
