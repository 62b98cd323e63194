"""Building a backbone: initial distributions, registers, layers, matched controls, and refused configurations."""

import math
from typing import Any

import pytest
import timm
import torch
from timm.layers import Mlp
from torch import Tensor, nn
from variants import SMALL, make, noise

from sinkablate.attention.module import Attention
from sinkablate.config import AttentionConfig, BackboneConfig
from sinkablate.errors import UserError
from sinkablate.vit.backbone import build_backbone
from sinkablate.vit.matched_control import widen_mlp
from sinkablate.vit.timm_models import short_name

WIDE: dict[str, dict[str, Any]] = {
    "vit_small_patch16_224": {"depth": 2},
    "deit3_small_patch16_224": {"depth": 2},
    "vit_small_patch14_reg4_dinov2": {"depth": 2},
    "vit_base_patch16_siglip_224": {"depth": 1},
    "vit_base_patch16_clip_224": {"depth": 1},
}


def spread(x: Tensor) -> tuple[float, float]:
    """Standard deviation and mean; a single number has no deviation."""
    x = x.detach()
    return float(x.std()) if x.numel() > 1 else 0.0, float(x.mean())


@pytest.mark.parametrize("name", WIDE)
def test_initial_parameters_follow_timms_distributions(name: str) -> None:
    """Mean and standard deviation of each parameter, and those of timm's initialization of the same model."""
    torch.manual_seed(0)
    timms = dict(timm.create_model(name, num_classes=100, img_size=112, **WIDE[name]).named_parameters())
    ours = dict(
        build_backbone(
            BackboneConfig(name=name, **WIDE[name]), num_classes=100, in_chans=3, img_size=112, seed=0
        ).named_parameters()
    )
    assert list(ours) == list(timms)
    for key, expected in timms.items():
        (std, mean), (own_std, own_mean) = spread(expected), spread(ours[key])
        error = 5 / math.sqrt(expected.numel())
        assert own_std == pytest.approx(std, rel=error, abs=1e-9), key
        assert own_mean == pytest.approx(mean, abs=2 * error * std + 1e-9), key
        assert ours[key].abs().max() <= 1.5 * expected.abs().max() + 1e-9, key


def test_initial_parameters_of_the_mechanisms() -> None:
    fields = {"embed_dim": 128, "num_heads": 4, "registers": 64}
    gate = make(attention=AttentionConfig(gate="elementwise", gate_init_bias=-1.0), **fields)
    weight, bias = gate.blocks[0].attn.gate.weight, gate.blocks[0].attn.gate.bias
    assert spread(weight)[0] == pytest.approx(1e-6, rel=0.03)
    assert torch.equal(bias, torch.full_like(bias, -1.0))
    assert spread(gate.reg_token)[0] == pytest.approx(1e-6, rel=0.03)
    positioned = make(register_pos_embed=True, register_init_std=0.02, **fields)
    assert spread(positioned.reg_token)[0] == pytest.approx(0.02, rel=0.03)
    assert spread(positioned.pos_embed[:, 1:65])[0] == pytest.approx(0.02, rel=0.03)
    kv = make(attention=AttentionConfig(sink="kv_bias"), **fields).blocks[0].attn.core
    assert spread(torch.cat((kv.sink_key, kv.sink_value)))[0] == pytest.approx(0.02, rel=0.15)
    assert not make(attention=AttentionConfig(sink="learned")).blocks[0].attn.core.sink_logit.any()


@pytest.mark.parametrize(
    ("layers", "changed"),
    [("all", [0, 1, 2, 3]), ((0,), [0]), ((-1,), [3]), ((1, -1), [1, 3]), ((3, -1), [3]), ((-4, 2), [0, 2])],
)
def test_only_the_listed_blocks_change(layers: Any, changed: list[int]) -> None:
    model = make(depth=4, layers=layers, attention=AttentionConfig(gate="headwise", gate_position="value"))
    assert [i for i, block in enumerate(model.blocks) if isinstance(block.attn, Attention)] == changed


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_out_of_range_is_refused(layer: int) -> None:
    with pytest.raises(UserError, match=f"layers: {layer} is outside the model's 2 blocks"):
        make(layers=(layer,), attention=AttentionConfig(sink="zero"))


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"embed_dim": 64}, {"embed_dim": 96, "num_heads": 3, "mlp_ratio": 2.0}, {"depth": 3, "layers": (-1,)}],
    ids=str,
)
def test_the_matched_control_has_as_many_parameters_as_the_gated_variant(gate: Any, fields: dict[str, Any]) -> None:
    """Within half a hidden unit, D + 1/2, of the gated variant in each changed block; attention stays timm's."""
    plain = make(**{k: v for k, v in fields.items() if k != "layers"})
    gated = make(attention=AttentionConfig(gate=gate), **fields)
    matched = make(match_parameters=gate, **fields)
    width = plain.embed_dim
    for index, blocks in enumerate(zip(plain.blocks, gated.blocks, matched.blocks, strict=True)):
        base, with_gate, control = (sum(p.numel() for p in block.parameters()) for block in blocks)
        changed = "layers" not in fields or index == len(plain.blocks) - 1
        extra = (width + 1) * (4 if gate == "headwise" and width != 96 else 3 if gate == "headwise" else width)
        assert with_gate - base == (extra if changed else 0)
        assert abs(control - with_gate) <= (width + 0.5 if changed else 0)
        shapes = [{n: p.shape for n, p in block.named_parameters() if "mlp" not in n} for block in blocks]
        assert shapes[0] == shapes[2]
    matched(noise(1, 1, 28, 28)).sum().backward()
    assert all(p.grad is not None for p in matched.parameters())


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("extra", [0, 1, 40, 41, 1000])
def test_widening_takes_the_nearest_whole_unit(bias: bool, extra: int) -> None:
    mlp = Mlp(20, 30, bias=bias)
    before = sum(p.numel() for p in mlp.parameters())
    widen_mlp(mlp, extra)
    unit = 2 * 20 + bias
    assert abs(sum(p.numel() for p in mlp.parameters()) - before - extra) <= unit / 2
    assert mlp(noise(2, 20)).shape == (2, 20)


def test_an_mlp_of_another_kind_is_not_widened() -> None:
    with pytest.raises(UserError, match=r"match_parameters: Linear"):
        widen_mlp(nn.Linear(3, 3), 10)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({}, (0, 16)),
        ({"registers": 0}, (0, 17)),
        ({"registers": 3}, (3, 16)),
        ({"registers": 3, "register_pos_embed": True}, (3, 20)),
        ({"class_token": False, "global_pool": "avg"}, (0, 16)),
        ({"class_token": False, "global_pool": "avg", "registers": 2}, (2, 16)),
    ],
    ids=str,
)
def test_registers_and_positions(fields: dict[str, Any], shape: tuple[int, int]) -> None:
    model = make(fields)
    registers, rows = shape
    assert model.num_reg_tokens == registers
    assert model.pos_embed.shape[1] == rows + (not fields)  # the baseline has a row for CLS
    assert model(noise(1, 1, 28, 28)).shape == (1, 10)


def test_fixed_positions_are_sines_and_not_trained() -> None:
    model = make(fixed_sincos=True, registers=2)
    rows = model.pos_embed[0]
    assert not model.pos_embed.requires_grad
    torch.testing.assert_close(rows.square().sum(-1), torch.full((16,), SMALL["embed_dim"] / 2))
    # shifting both positions by one row leaves their inner product unchanged
    grid = rows.view(4, 4, -1)
    products = (grid[1:] * grid[:-1]).sum(-1)
    torch.testing.assert_close(products, products[:1, :1].expand_as(products))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "vit_minny"}, "did you mean vit_mini"),
        ({"patch_size": 5}, r"patch_size=5: images of 28 pixels do not divide.*images of 25 or 30 pixels"),
        ({"num_heads": 7}, "name=vit_mini: .*divisible"),
        ({"class_token": False}, "name=vit_mini: "),
        ({"fixed_sincos": True, "embed_dim": 42, "num_heads": 2}, "fixed_sincos=true needs"),
    ],
    ids=str,
)
def test_backbones_that_cannot_be_built_are_refused_in_one_line(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        make(fields)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "key"),
    [
        ({"registers": 2}, "registers"),
        ({"attention": AttentionConfig(sink="zero")}, "attention"),
        ({"match_parameters": "headwise"}, "match_parameters"),
        ({"fixed_sincos": True}, "fixed_sincos"),
    ],
)
@pytest.mark.parametrize("name", ["beit_base_patch16_224", "vit_small_patch16_dinov3"])
def test_families_with_their_own_attention_are_not_changed(name: str, asked: dict[str, Any], key: str) -> None:
    config = BackboneConfig(name=name, depth=1, embed_dim=48, num_heads=3, **asked)
    with pytest.raises(UserError, match=rf"^{key} cannot change {name}"):
        build_backbone(config, num_classes=2, in_chans=3, img_size=32, seed=0)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("vit_small_patch16_224", "vit_s16"),
        ("vit_tiny_patch16_384", "vit_ti16"),
        ("vit_mini", "vit_mini"),
        ("vit_small_patch14_dinov2.lvd142m", "vit_small_patch14_dinov2.lvd142m"),
        ("hf-hub:a/b", "hf-hub_a_b"),
        ("local-dir:a/b", "b"),
    ],
)
def test_short_names_of_backbones(name: str, short: str) -> None:
    assert short_name(name) == short
