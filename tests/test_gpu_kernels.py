"""Compiled FlexAttention on a GPU equals the explicit path in float64; on a CPU, the same tests run at a small size.

`pytest -m gpu` on a machine with a GPU.
"""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from running import column, fit
from torch import Tensor
from torch.nn.attention import flex_attention
from variants import flex_forms, noise

from sinkablate.attention import denominator
from sinkablate.attention.core import AttentionCore
from sinkablate.config import AttentionConfig

HEADS, WIDTH = 4, 64
forms = pytest.mark.parametrize("fields", flex_forms(polynomial_power=4), ids=str)
gpu = pytest.mark.gpu
SIZES = [(19, "cpu"), pytest.param(197, "cuda", marks=gpu), pytest.param(1370, "cuda", marks=gpu)]


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start without compiled code, and allow gradients of the reference implementation on a CPU."""
    torch._dynamo.reset()
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


def core_of(device: str, dtype: torch.dtype = torch.float32, **fields: Any) -> AttentionCore:
    core = AttentionCore(AttentionConfig(**fields), HEADS, WIDTH).to(device, dtype)
    for i, p in enumerate(core.parameters()):
        p.data = noise(*p.shape, seed=10 + i).to(device, dtype)
    return core


def qkv(tokens: int, device: str, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Queries, keys and values of two images; all logits of five queries are negative."""
    q, k, v = (noise(2, HEADS, tokens, WIDTH, seed=i) for i in range(3))
    k[1, 1], q[1, 1, :5] = k[1, 1].abs(), -q[1, 1, :5].abs()
    return [x.to(device, dtype).requires_grad_() for x in (q, k, v)]


def compiled(function: Callable[..., Tensor], device: str) -> Callable[..., Tensor]:
    """The compiled function; on a CPU the function itself, because inductor has no log-sum-exp there."""
    return torch.compile(function, fullgraph=True) if device == "cuda" else function


def results(function: Callable[..., Tensor], inputs: list[Tensor], core: AttentionCore) -> list[Tensor]:
    """The output, and the gradients of the inputs and the parameters."""
    out = function(*inputs)
    direction = noise(*out.shape, seed=5).to(out)
    return [out, *torch.autograd.grad((out * direction).sum(), [*inputs, *core.parameters()])]


@forms
@pytest.mark.parametrize(("tokens", "device"), SIZES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-5), (torch.bfloat16, 0.03)], ids=["fp32", "bf16"])
def test_kernels_equal_the_explicit_path_in_float64(
    fields: dict[str, Any], tokens: int, device: str, dtype: torch.dtype, limit: float
) -> None:
    """Output and gradients, relative to their norms; the inputs are those that the kernel reads."""
    core, inputs = core_of(device, dtype, **fields), qkv(tokens, device, dtype)
    exact_core, exact = deepcopy(core).double(), [x.detach().double().requires_grad_() for x in inputs]
    expected = results(lambda *x: exact_core(*x, fused=False), exact, exact_core)
    for got, correct in zip(results(compiled(core.forward_flex, device), inputs, core), expected, strict=True):
        assert got.dtype == dtype
        assert float((got.double() - correct).norm() / correct.norm()) <= limit


@gpu
@pytest.mark.parametrize("sink", ["zero", "learned"])
@pytest.mark.parametrize("tokens", [197, 1370])
@pytest.mark.parametrize("compiles", [False, True], ids=["eager", "compiled"])
def test_sinks_on_the_flash_kernel_equal_float64(sink: str, tokens: int, compiles: bool) -> None:
    core, inputs = core_of("cuda", torch.bfloat16, sink=sink), qkv(tokens, "cuda", torch.bfloat16)
    assert denominator.is_usable(inputs[2], 0.0)
    exact_core, exact = deepcopy(core).double(), [x.detach().double().requires_grad_() for x in inputs]
    expected = results(lambda *x: exact_core(*x, fused=False), exact, exact_core)
    got = results(torch.compile(core, fullgraph=True) if compiles else core, inputs, core)
    for one, other in zip(got, expected, strict=True):
        assert float((one.double() - other).norm() / other.norm()) <= 0.03


def peak(function: Callable[..., Tensor], tokens: int, core: AttentionCore) -> int:
    """Bytes that a forward and backward pass needs at most, in addition to its inputs."""
    inputs = qkv(tokens, "cuda", torch.bfloat16)
    results(function, inputs, core)  # compiles
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results(function, inputs, core)
    return torch.cuda.max_memory_allocated() - before


@gpu
@forms
def test_memory_is_linear_in_the_number_of_tokens(fields: dict[str, Any]) -> None:
    """Four times the tokens take four times the memory; with all weights, it would be sixteen times."""
    core = core_of("cuda", torch.bfloat16, kernel="auto", **fields)
    function = compiled(core, "cuda")
    assert peak(function, 4096, core) < 6 * peak(function, 1024, core)


@gpu
@forms
def test_gradients_are_the_same_in_every_run(fields: dict[str, Any]) -> None:
    core, inputs = core_of("cuda", torch.bfloat16, **fields), qkv(1370, "cuda", torch.bfloat16)
    function = compiled(core.forward_flex, "cuda")
    one, other = (results(function, inputs, core) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@gpu
def test_a_model_that_is_not_compiled_uses_a_compiled_kernel() -> None:
    fields = {"score": "relu"}
    core, inputs = core_of("cuda", kernel="flex", **fields), qkv(1370, "cuda")
    explicit = core_of("cuda", kernel="explicit", **fields)
    torch.testing.assert_close(core(*inputs), explicit(*inputs), rtol=1e-4, atol=1e-5)
    weights = 4 * 2 * HEADS * 1370**2
    assert peak(core, 1370, core) < weights / 2 < peak(explicit, 1370, explicit)


@gpu
@pytest.mark.parametrize(
    "extra", [(), ("--model.compile=true",), ("--model.backbone.grad_checkpointing=true",)], ids=str
)
def test_training_with_either_kernel_ends_in_the_same_losses(extra: tuple[str, ...], tmp_path: Path) -> None:
    losses = {}
    for kernel in ("explicit", "flex"):
        keys = ("--model.backbone.attention.score=sigmoid", f"--model.backbone.attention.kernel={kernel}", *extra)
        steps = ("--trainer.accelerator=gpu", "--trainer.devices=1", "--trainer.limit_train_batches=4")
        fit(tmp_path / kernel, *steps, *keys).succeeded()
        losses[kernel] = [float(loss) for loss in column(tmp_path / kernel, "train/loss").values()]
    assert losses["flex"] == pytest.approx(losses["explicit"], rel=1e-4)
