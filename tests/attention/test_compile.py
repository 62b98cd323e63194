"""torch.compile gives the same output, without graph breaks, for every value of every axis."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from variants import make, noise, perturbed

from sinkablate.config import AttentionConfig

AXES: list[dict[str, Any]] = [
    {},
    {"sink": "zero"},
    {"sink": "learned"},
    {"sink": "kv_bias"},
    {"score": "clipped_softmax"},
    {"score": "relu"},
    {"score": "pointwise", "pointwise_function": "gelu"},
    {"score": "polynomial"},
    {"score": "sigmoid"},
    {"score": "sigmoid", "sigmoid_bias": "learned"},
    {"gate": "headwise"},
    {"gate": "elementwise"},
    {"gate": "headwise", "gate_position": "value"},
    {"gate": "elementwise", "gate_position": "value"},
]


def agree(model: nn.Module, compiled: Any, x: Tensor) -> None:
    """Outputs and gradients of every parameter."""
    outs, gradients = [], []
    for module in (model, compiled):
        model.zero_grad()
        outs.append(module(x))
        outs[-1].square().mean().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    torch.testing.assert_close(outs[1], outs[0], atol=1e-5, rtol=1e-5)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fields", AXES, ids=str)
def test_compiled_equals_eager(fields: dict[str, Any]) -> None:
    torch._dynamo.reset()
    model = perturbed(make(depth=1, registers=2, attention=AttentionConfig(**fields)))
    agree(model, torch.compile(model, backend="aot_eager", fullgraph=True), noise(2, 1, 28, 28))


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_generated_code_equals_eager() -> None:
    torch._dynamo.reset()
    attn = make(depth=1, attention=AttentionConfig(sink="learned", gate="elementwise")).blocks[0].attn
    agree(attn, torch.compile(attn, backend="inductor", fullgraph=True), noise(2, 9, 40))
