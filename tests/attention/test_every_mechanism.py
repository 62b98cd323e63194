"""Properties of every legal combination of score, sink, gate, gate position and registers."""

from copy import deepcopy

import pytest
import torch
from torch.nn.functional import cross_entropy
from variants import make, mechanisms, noise, perturbed, set_fused

from sinkablate.config import AttentionConfig, BackboneConfig

IMAGES = noise(2, 1, 28, 28)
TARGETS = torch.tensor([1, 7])


def test_every_legal_combination_is_listed() -> None:
    # 4 sinks of softmax, 4 other scores, 2 biases of sigmoid; no gate or 2 gates at 2 positions; 0 or 2 registers
    assert len(mechanisms()) == (4 + 4 + 2) * (1 + 2 * 2) * 2


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_equals_explicit(mechanism: BackboneConfig, dtype: torch.dtype, limit: float) -> None:
    model = perturbed(make(mechanism)).to(dtype).eval()
    if mechanism.attention.score == "softmax":
        assert all(block.attn.fused_attn for block in model.blocks)
    twin = deepcopy(model)
    set_fused(twin, False)
    images = IMAGES.to(dtype)
    assert (model(images) - twin(images)).abs().max() <= limit
    if dtype == torch.float64:
        for module in (model, twin):
            cross_entropy(module(images), TARGETS).backward()
        for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("precision", ["fp32", "bf16-autocast"])
def test_gradients_at_initialization_are_finite_and_nonzero(mechanism: BackboneConfig, precision: str) -> None:
    model = make(mechanism).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "fp32"):
        loss = cross_entropy(model(IMAGES), TARGETS)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert precision != "fp32" or parameter.grad.abs().max() > 0, name


def test_state_dict_round_trips(mechanism: BackboneConfig) -> None:
    model, other = perturbed(make(mechanism)).eval(), make(mechanism, seed=1).eval()
    assert not torch.equal(model(IMAGES), other(IMAGES))
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(IMAGES), other(IMAGES))


def test_a_frozen_gate_does_not_change() -> None:
    frozen = make(attention=AttentionConfig(gate="headwise", gate_frozen=True))
    cross_entropy(frozen(IMAGES), TARGETS).backward()
    for name, p in frozen.named_parameters():
        assert (p.grad is None) == ("gate" in name), name
