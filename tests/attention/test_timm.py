"""The default configuration is timm's attention, bit for bit; weights travel both ways."""

from copy import deepcopy
from typing import Any

import pytest
import timm
import torch
from timm.layers import Attention as TimmAttention
from torch import nn
from variants import noise, perturbed, set_fused

from sinkablate.attention.module import Attention
from sinkablate.config import AttentionConfig
from sinkablate.errors import UserError

FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"model_name": "vit_tiny_patch16_224", "img_size": 64},
    "dinov2": {"model_name": "vit_small_patch14_dinov2", "img_size": 56},
    "qk_norm": {"model_name": "vit_tiny_patch16_224", "img_size": 64, "qk_norm": True},
    "scale_norm": {"model_name": "vit_tiny_patch16_224", "img_size": 64, "scale_attn_norm": True},
}


def pair(name: str) -> tuple[Any, Any]:
    """timm's model and the same with our module in the default configuration."""
    timms = perturbed(timm.create_model(depth=2, num_classes=3, **FAMILIES[name]))
    ours = deepcopy(timms)
    for block in ours.blocks:
        block.attn = Attention.from_timm(block.attn, AttentionConfig())
    return timms, ours


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("fused", "limit"), [(True, 0.0), (False, 1.3e-6)])
def test_plain_attention_equals_timms(name: str, fused: bool, limit: float) -> None:
    timms, ours = pair(name)
    side = timms.patch_embed.img_size[0]
    images = noise(2, 3, side, side)
    for model in (timms, ours):
        set_fused(model, fused)
        model.eval()
    out = timms(images)
    assert ((out - ours(images)).abs().max() / out.abs().max()) <= limit


def test_dropout_draws_as_timm_does() -> None:
    torch.manual_seed(0)
    timms = TimmAttention(40, num_heads=4, attn_drop=0.3, proj_drop=0.2).train()
    ours = Attention.from_timm(deepcopy(timms), AttentionConfig()).train()
    x = noise(2, 9, 40)
    for fused in (True, False):
        timms.fused_attn = ours.fused_attn = fused
        torch.manual_seed(1)
        expected = timms(x)
        torch.manual_seed(1)
        assert torch.equal(ours(x), expected)


def test_state_dicts_load_in_both_directions() -> None:
    timms, ours = pair("vit")
    assert list(ours.state_dict()) == list(timms.state_dict())
    gated = timm.create_model("vit_tiny_patch16_224", depth=2, img_size=64, num_classes=3)
    for block in gated.blocks:
        block.attn = Attention.from_timm(block.attn, AttentionConfig(gate="elementwise"))
    attn = TimmAttention(192, num_heads=3, qkv_bias=True, gated=True)
    attn.load_state_dict(gated.blocks[0].attn.state_dict())  # timm's gate is our elementwise G1
    x = noise(2, 9, 192)
    assert torch.equal(attn(x), gated.blocks[0].attn(x))


class Rewritten(TimmAttention):
    """A subclass may compute anything."""


@pytest.mark.parametrize(
    ("attn", "says"),
    [
        (nn.MultiheadAttention(40, 4), "MultiheadAttention"),
        (Rewritten(40, num_heads=4), "Rewritten"),
        (TimmAttention(40, num_heads=4, gated=True), "already has an attention gate"),
    ],
)
def test_other_attention_modules_are_refused_and_named(attn: nn.Module, says: str) -> None:
    with pytest.raises(UserError, match=says):
        Attention.from_timm(attn, AttentionConfig(sink="zero"))
