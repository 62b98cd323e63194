"""A gate that starts as the identity leaves the function of a model as it was."""

from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from variants import make, noise, perturbed

from sinkablate.attention.module import Attention, TimmAttention
from sinkablate.config import AttentionConfig, BackboneConfig, ToyConfig
from sinkablate.toys.model import build_toy
from sinkablate.vit.backbone import build_backbone

GATES = pytest.mark.parametrize("gate", ["headwise", "elementwise"])
POSITIONS = pytest.mark.parametrize("position", ["output", "value"])
DINOV2 = "vit_small_patch14_dinov2.lvd142m"


def identity(gate: str, position: str, **fields: Any) -> AttentionConfig:
    return AttentionConfig(gate=gate, gate_position=position, gate_start="identity", **fields)


def relative_change(out: Tensor, expected: Tensor) -> float:
    """Norm of the difference relative to the norm of the expected values."""
    return float(((out - expected).norm() / expected.norm()).detach())


@GATES
@POSITIONS
@pytest.mark.parametrize("bias", [2.0, 0.0, -3.0])
@pytest.mark.parametrize(
    "core", [{}, {"sink": "zero"}, {"sink": "kv_bias"}, {"score": "relu"}], ids=["softmax", "zero", "kv_bias", "relu"]
)
def test_the_fold_is_exact(gate: str, position: str, bias: float, core: dict[str, Any]) -> None:
    """In float64, with biases everywhere and a sink value that a gate at the values does not reach."""
    torch.manual_seed(0)
    timms = perturbed(TimmAttention(30, num_heads=3, qkv_bias=True).double())
    plain = Attention.from_timm(deepcopy(timms), AttentionConfig(**core)).double()
    config = identity(gate, position, gate_init_bias=bias, **core)
    gated = Attention.from_timm(timms, config).double()
    gated.reset_parameters(lambda name: torch.Generator())
    for name, p in plain.core.named_parameters():
        p.data = noise(*p.shape, dtype=torch.float64)
        gated.core.get_parameter(name).data = p.data.clone()
    x = noise(2, 11, 30, dtype=torch.float64)
    assert relative_change(gated(x), plain(x)) > 0.05
    gated.fold_gate()
    assert relative_change(gated(x), plain(x)) <= 1e-14


@GATES
@POSITIONS
def test_a_model_starts_as_the_variant_without_a_gate(gate: str, position: str) -> None:
    """Untrained models of one seed, in fp32; every parameter of the gate receives a gradient."""
    plain, images = make().eval(), noise(4, 1, 28, 28)
    gated = make(attention=identity(gate, position)).eval()
    scaled = make(attention=AttentionConfig(gate=gate, gate_position=position)).eval()
    assert relative_change(gated.forward_features(images), plain.forward_features(images)) <= 1e-6
    assert relative_change(scaled.forward_features(images), plain.forward_features(images)) >= 1e-4
    cross_entropy(gated.train()(images), torch.arange(4)).backward()
    for block in gated.blocks:
        assert all(p.grad.abs().max() > 0 for p in block.attn.gate.parameters())


@GATES
@POSITIONS
def test_pretrained_weights_start_with_their_function(dinov2: Path, gate: str, position: str) -> None:
    """In float64, because rounding to fp32 alone changes the output of the plain model by 1e-6."""
    plain, gated = (
        build_backbone(
            BackboneConfig(name=DINOV2, checkpoint=str(dinov2), attention=attention),
            num_classes=0,
            in_chans=3,
            img_size=42,
        )
        .double()
        .eval()
        for attention in (AttentionConfig(), identity(gate, position))
    )
    images = noise(2, 3, 42, 42, dtype=torch.float64)
    with torch.no_grad():
        assert relative_change(gated.forward_features(images), plain.forward_features(images)) <= 1e-7


def test_only_the_selected_blocks_are_folded() -> None:
    plain, gated = make(), make(attention=identity("headwise", "output"), layers=(1,))
    weights = [[block.attn.proj.weight for block in model.blocks] for model in (plain, gated)]
    assert torch.equal(weights[0][0], weights[1][0])
    torch.testing.assert_close(weights[1][1], weights[0][1] / torch.tensor(2.0).sigmoid())


def test_weights_of_a_gated_run_are_not_folded_again(tmp_path: Path) -> None:
    attention = identity("headwise", "value")
    trained = perturbed(make(attention=attention))
    state = {f"backbone.{name}": p for name, p in trained.state_dict().items()}
    torch.save(
        {"state_dict": state, "hyper_parameters": {"backbone": asdict(BackboneConfig(attention=attention))}},
        tmp_path / "run.ckpt",
    )
    model = make(attention=attention, checkpoint=str(tmp_path / "run.ckpt"), seed=3)
    assert all(torch.equal(p, trained.get_parameter(name)) for name, p in model.named_parameters())


@POSITIONS
def test_a_toy_starts_as_the_toy_without_a_gate(position: str) -> None:
    plain = build_toy(ToyConfig(), seed=0)
    gated = build_toy(ToyConfig(attention=identity("headwise", position)), seed=0)
    tokens = noise(2, plain.pos_embed.shape[0], 64)
    assert relative_change(gated(tokens), plain(tokens)) <= 1e-6
