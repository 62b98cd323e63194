"""The tap captures what a model computes, for every timm family and mechanism, and refuses what it cannot measure."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from families import FAMILIES, family, hook_count, pictures
from tapping import tapped
from timm.layers import Attention as TimmAttention
from torch import Tensor
from torch.overrides import TorchFunctionMode
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig, BackboneConfig, PathwayConfig
from sinkablate.diagnostics.tap import MAX_REBUILD_ERROR
from sinkablate.errors import UserError

SIDE = {
    "cait_xxs24_224": 224,
    "xcit_nano_12_p16_224": 224,
    "swin_tiny_patch4_window7_224": 224,
    "convnext_atto": 64,
    "vit_base_patch16_xp_224": 48,
    "vit_base_patch16_rpn_224": 48,
}


def explicit_weights(model: Any, images: Tensor) -> list[Tensor]:
    """What the unfused code of each block passes to its attention dropout: timm's softmax."""
    weights: list[Tensor] = []
    handles = []
    for block in model.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_pre_hook(lambda _, args: weights.append(args[0])))
    with torch.no_grad():
        model.forward_features(images)
    for block in model.blocks:
        block.attn.fused_attn = True
    for handle in handles:
        handle.remove()
    return weights


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_captured_once_per_block(name: str) -> None:
    model, layout = family(name), FAMILIES[name][1]
    images, before = pictures(model), hook_count(model)
    expected, stream = explicit_weights(model, images), []
    for block in model.blocks:
        block.register_forward_hook(lambda _, _args, output: stream.append(output))
    with torch.no_grad():
        untouched = model.forward_features(images)
    plain_stream = stream.copy()
    views, outputs, errors = tapped(model, images)
    assert [view.index for view in views] == [0, 1] == list(errors)
    assert max(errors.values()) < 1e-5 < MAX_REBUILD_ERROR
    for view, output, weights, own in zip(views, outputs, expected, plain_stream, strict=True):
        assert view.layout == layout
        assert view.layout.num_tokens == view.q.shape[2]
        torch.testing.assert_close(view.weights(), weights, atol=1e-5, rtol=1e-4)
        assert view.weights().std(-1).max() > 0.01, "uniform rows would prove nothing"
        assert torch.equal(output, own)
    assert hook_count(model) == before + 2  # those of this test
    with torch.no_grad():  # a mask with a gradient would choose another kernel
        assert torch.equal(model.forward_features(images), untouched)


def test_weights_equal_those_of_the_unfused_code() -> None:
    model = family("vit_tiny_patch16_224")
    images = pictures(model)
    view, attn = tapped(model, images)[0][0], model.blocks[0].attn
    x = model.blocks[0].norm1(model._pos_embed(model.patch_embed(images)))
    q, k, _ = (x @ attn.qkv.weight.T + attn.qkv.bias).unflatten(-1, (3, 3, 64)).double().permute(2, 0, 3, 1, 4)
    s = q @ k.mT / 8
    weights = s.exp() / s.exp().sum(-1, keepdim=True)
    assert (view.weights() - weights).abs().max() < 1e-5
    assert (view.weights(slice(1, 2), slice(0, 2)) - weights[1:2, 0:2]).abs().max() < 1e-5


class _Calls(TorchFunctionMode):
    """Counts calls of fused attention."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


def test_attention_outside_the_blocks_is_ignored() -> None:
    model = family("vit_base_patch16_siglip_224")
    features = model.forward_features
    model.forward_features = lambda images: model.forward_head(features(images))  # the pooling head, inside the tap
    with _Calls() as calls:
        views, _, errors = tapped(model, pictures(model))
    assert calls.count == 3
    assert [view.index for view in views] == [0, 1] == list(errors)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("cait_xxs24_224", "TalkingHeadAttn"),
        ("xcit_nano_12_p16_224", "XCA"),
        ("swin_tiny_patch4_window7_224", "Swin"),
        ("convnext_atto", "ConvNeXt"),
        ("vit_base_patch16_xp_224", "ParallelScalingBlock"),
        ("vit_base_patch16_rpn_224", "VisionTransformer: block 0 rebuilt"),
    ],
)
def test_families_that_cannot_be_measured_are_refused_and_named(name: str, says: str) -> None:
    smaller = {"depth": 2, "img_size": SIDE[name]} if name.startswith("vit") else {}
    model = timm.create_model(name, num_classes=0, **smaller).eval()
    with pytest.raises(UserError, match=says):
        tapped(model, noise(1, 3, SIDE[name], SIDE[name]))
    assert hook_count(model) == 0


def test_a_norm_before_the_output_projection_is_refused() -> None:
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, scale_attn_norm=True).eval()
    with pytest.raises(UserError, match="norm between the heads and W_O"):
        tapped(model, noise(1, 3, 32, 32))


class _GatedTimmAttention(TimmAttention):
    """`attn_layer` takes a class and no arguments for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, gated=True)


def test_timms_gated_attention_is_measured() -> None:
    model = perturbed(
        timm.create_model("vit_tiny_patch16_224", depth=2, img_size=32, num_classes=0, attn_layer=_GatedTimmAttention)
    ).eval()
    views, _, errors = tapped(model, noise(2, 3, 32, 32))
    assert max(errors.values()) < 1e-5
    assert views[0].gate is not None
    assert views[0].gate.shape == (2, 3, 5, 64)


@pytest.mark.parametrize("fused", [True, False])
def test_every_mechanism_is_rebuilt(mechanism: BackboneConfig, fused: bool) -> None:
    model = perturbed(make(mechanism)).eval()
    for block in model.blocks:
        block.attn.fused_attn = fused
    config = mechanism.attention
    if config.is_identity and not fused:  # timm's own module, whose explicit path cannot be hooked
        with pytest.raises(UserError, match="fused attention is off"):
            tapped(model, noise(2, 1, 28, 28))
        return
    views, _, errors = tapped(model, noise(2, 1, 28, 28))
    assert max(errors.values()) < 1e-5
    assert [view.index for view in views] == [0, 1]
    for view in views:
        assert view.layout.num_registers == (mechanism.registers or 0)
        assert view.k.shape[2] - view.q.shape[2] == (config.sink != "none") == len(view.extra)
        assert (view.gate is not None) == (config.gate != "none")
        assert view.gates_values == (config.gate != "none" and config.gate_position == "value")
        assert (view.raw_v is not None) == view.gates_values
        rows = view.weights().sum(-1)
        assert ((rows - 1).abs().max() < 1e-5) == (config.score == "softmax")


def test_a_pathway_next_to_attention_is_part_of_the_rebuild() -> None:
    model = perturbed(make(attention=AttentionConfig(gate="headwise"), pathway=PathwayConfig(kind="global"))).eval()
    _, _, errors = tapped(model, noise(2, 1, 28, 28))
    assert max(errors.values()) < 1e-5
    block = model.blocks[0]
    block.pathway.forward = torch.zeros_like  # the hook captures what the block adds, so this is still exact
    assert max(tapped(model, noise(2, 1, 28, 28))[2].values()) < 1e-5
    block.forward = lambda x: (
        x
        + block.mlp(
            block.norm2(  # a pathway without output is an error
                x + block.attn(block.norm1(x))
            )
        )
    )
    with pytest.raises(UserError, match="rebuilt"):
        tapped(model, noise(2, 1, 28, 28))
