"""torch.compile gives the same output, without graph breaks, for every value of every axis."""

import re
import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._inductor.utils import run_and_get_code
from variants import make, noise, perturbed

from sinkablate.attention.core import AttentionCore
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
SCORES = [
    *(fields for fields in AXES if "score" in fields),
    *({"score": "pointwise", "pointwise_function": name} for name in ("relu2", "softplus", "identity", "sigmoid")),
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


compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler"
)


@pytest.mark.slow
@compiler
def test_generated_code_equals_eager() -> None:
    torch._dynamo.reset()
    attn = make(depth=1, attention=AttentionConfig(sink="learned", gate="elementwise")).blocks[0].attn
    agree(attn, torch.compile(attn, backend="inductor", fullgraph=True), noise(2, 9, 40))


def launches(code: str) -> tuple[int, int]:
    """The number of generated kernels and of calls of matrix products in generated code."""
    return len(set(re.findall(r"^(cpp_fused\w+) =", code, re.MULTILINE))), len(
        re.findall(r"extern_kernels\.bmm\(", code)
    )


@pytest.mark.slow
@compiler
@pytest.mark.parametrize("fields", SCORES, ids=str)
def test_scores_compile_to_one_kernel_between_two_matrix_products(fields: dict[str, Any]) -> None:
    """Forward, a second kernel scales the queries; backward, there are two kernels and four products."""
    torch._dynamo.reset()
    core, inputs = AttentionCore(AttentionConfig(**fields), 2, 16), [noise(1, 2, 33, 16, seed=i) for i in range(3)]
    inputs = [x.requires_grad_() for x in inputs]

    def results(function: Any) -> list[Tensor]:
        out = function(*inputs)
        return [out, *torch.autograd.grad(out.square().sum(), [*inputs, *core.parameters()])]

    generated, codes = run_and_get_code(results, torch.compile(core, fullgraph=True))
    for one, other in zip(generated, results(core), strict=True):
        assert (one - other).abs().max() <= 1e-6 * other.abs().max()
    assert [launches(code) for code in codes] == [(2, 2), (2, 4)]
