"""Sinks in the denominator run on a flash kernel without an extra column, with the same results as with one."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from variants import noise

from sinkablate.attention import denominator
from sinkablate.attention.core import AttentionCore
from sinkablate.attention.sinks import Sink
from sinkablate.config import AttentionConfig

B, H, N, D = 2, 3, 19, 10
sinks = pytest.mark.parametrize("sink", ["zero", "learned"])


class Operators(TorchDispatchMode):
    """Records the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name().removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


def core_of(sink: str, dtype: torch.dtype = torch.float64) -> AttentionCore:
    core = AttentionCore(AttentionConfig(sink=sink), H, D).to(dtype)
    for p in core.parameters():
        p.data = noise(*p.shape, seed=10, dtype=dtype)
    return core


def qkv(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [(3 * noise(B, H, N, D, seed=i)).to(dtype).requires_grad_() for i in range(3)]


def results(core: AttentionCore, inputs: list[Tensor], **options: Any) -> list[Tensor]:
    """The output, and the gradients of the inputs and the parameters."""
    out = core(*inputs, **options)
    direction = noise(*out.shape, seed=5).to(out)
    return [out, *torch.autograd.grad((out * direction).sum(), [*inputs, *core.parameters()])]


@sinks
def test_one_kernel_runs_forward_and_one_backward_and_nothing_is_concatenated(sink: str) -> None:
    with Operators() as operators:
        results(core_of(sink), qkv())
    flash = "_scaled_dot_product_flash_attention_for_cpu"
    assert [name for name in operators.names if "attention" in name] == [flash, f"{flash}_backward"]
    assert not {"cat", "constant_pad_nd", "bmm", "_softmax"} & set(operators.names)


@sinks
@pytest.mark.parametrize("other", ["column", "explicit"])
def test_the_extra_column_gives_the_same(sink: str, other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    core, inputs = core_of(sink), qkv()
    kernel = results(core, inputs)
    monkeypatch.setattr(denominator, "is_usable", lambda *_: False)
    for one, column in zip(kernel, results(core, inputs, fused=other == "column"), strict=True):
        torch.testing.assert_close(one, column, rtol=1e-12, atol=1e-13)


@sinks
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 0.02)], ids=str)
def test_lower_precision_is_close_to_float64(sink: str, dtype: torch.dtype, limit: float) -> None:
    inputs = qkv(dtype)
    core = core_of(sink, dtype)
    exact_core, exact_inputs = core_of(sink), [x.detach().double().requires_grad_() for x in inputs]
    exact_core.load_state_dict(core.state_dict())
    exact = results(exact_core, exact_inputs, fused=False)
    for one, other in zip(results(core, inputs), exact, strict=True):
        assert one.dtype == dtype
        assert (one.double() - other).norm() <= limit * other.norm()


@sinks
def test_norms_may_return_another_dtype_than_the_values(sink: str) -> None:
    """Under autocast, queries and keys after a norm are float32 and values bfloat16."""
    q, k, v = qkv(torch.bfloat16)
    out = core_of(sink, torch.float32)(q.float(), k.float(), v)
    assert torch.equal(out, core_of(sink, torch.float32)(q, k, v))


@sinks
def test_a_cpu_drops_weights_with_an_extra_column(sink: str) -> None:
    core, inputs = core_of(sink), qkv()
    with Operators() as operators:
        core(*inputs, dropout_p=0.5)
    assert "cat" in operators.names


@sinks
def test_operators_of_a_gpu_accept_these_arguments(sink: str) -> None:
    """Tensors without data follow the path of a GPU, eagerly and in a graph without breaks."""
    core = core_of(sink, torch.bfloat16).to("meta")
    inputs = [torch.empty(B, H, N, 64, dtype=torch.bfloat16, device="meta", requires_grad=True) for _ in range(3)]
    logit = core.sink_logit if sink == "learned" else None
    for attend in (denominator.attend, torch.compile(denominator.attend, backend="aot_eager", fullgraph=True)):
        out = attend(*inputs, 0.125, logit, 0.1)
        gradients = torch.autograd.grad(out.sum(), [*inputs, *core.parameters()])
        assert [x.shape for x in gradients] == [x.shape for x in (*inputs, *core.parameters())]
    with Operators() as operators:
        denominator.attend(*inputs, 0.125, logit, 0.1).sum().backward()
    assert "_scaled_dot_product_flash_attention_backward" in operators.names


def test_which_values_have_a_kernel() -> None:
    values = noise(1, 1, 2, 64)
    assert denominator.is_usable(values, 0.0)
    assert not denominator.is_usable(values, 0.1)
    assert not denominator.is_usable(values.to("meta"), 0.0)


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        (Sink(), True),
        (Sink(learned=("logit",)), True),
        (Sink(learned=("key", "logit")), False),
        (Sink(learned=("value",)), False),
        (Sink(key=lambda k: k.mean(2, keepdim=True)), False),
    ],
    ids=["zero", "logit", "key", "value", "computed key"],
)
def test_which_sinks_are_in_the_denominator(sink: Sink, expected: bool) -> None:
    assert sink.is_denominator == expected


@pytest.mark.parametrize(
    ("dtype", "width", "kernels", "expected"),
    [
        (torch.bfloat16, 64, True, True),
        (torch.float16, 128, True, True),
        (torch.bfloat16, 64, False, False),
        (torch.float32, 64, True, False),
        (torch.bfloat16, 20, True, False),
    ],
    ids=str,
)
def test_which_values_have_a_kernel_on_a_gpu(
    dtype: torch.dtype, width: int, kernels: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denominator, "_has_flash_kernels", lambda _: kernels)
    with FakeTensorMode():
        assert denominator.is_usable(torch.empty(1, 1, 2, width, device="cuda", dtype=dtype), 0.1) == expected


def test_a_decision_about_the_device_is_a_constant_of_a_compiled_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    decide = torch.compiler.assume_constant_result(lambda device: device >= 0)
    monkeypatch.setattr(denominator, "_has_flash_kernels", decide)

    def path(x: Tensor) -> Tensor:
        return x + 1 if denominator._has_flash_kernels(0) else x - 1

    assert torch.compile(path, backend="eager", fullgraph=True)(torch.zeros(1)) == 1


@sinks
def test_heads_whose_coordinates_are_not_adjacent_in_memory(sink: str) -> None:
    inputs = [x.detach().mT.contiguous().mT.requires_grad_() for x in qkv()]
    assert {x.stride(-1) for x in inputs} == {N}
    for result, expected in zip(results(core_of(sink), inputs), results(core_of(sink), qkv()), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)


@sinks
def test_gradients_of_single_images_by_vmap(sink: str) -> None:
    core, inputs = core_of(sink), qkv()
    parameters = dict(core.named_parameters())

    def loss(parameters: dict[str, Tensor], *image: Tensor) -> Tensor:
        outputs: Tensor = torch.func.functional_call(core, parameters, tuple(x[None] for x in image))
        return outputs.square().sum()

    per_image = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 2, 3)), in_dims=(None, 0, 0, 0))
    of_parameters, *of_inputs = per_image(parameters, *(x.detach() for x in inputs))
    expected = torch.autograd.grad(core(*inputs).square().sum(), [*inputs, *core.parameters()])
    for actual, one_pass in zip([*of_inputs, *(g.sum(0) for g in of_parameters.values())], expected, strict=True):
        torch.testing.assert_close(actual, one_pass, rtol=1e-10, atol=1e-10)
