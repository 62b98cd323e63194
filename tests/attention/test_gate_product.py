"""qkv and gate are one matrix product, unless somebody hooks or replaces one of the layers."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.overrides import TorchFunctionMode
from variants import make, noise, perturbed

from sinkablate.attention.linear import ROW_MULTIPLE, called_separately, is_plain_linear, stacked_rows
from sinkablate.attention.module import Attention
from sinkablate.config import AttentionConfig

GATES = [
    {"gate": gate, "gate_position": position}
    for gate in ("headwise", "elementwise")
    for position in ("output", "value")
]


class LinearCalls(TorchFunctionMode):
    """Records the number of rows of the weight in every call of `F.linear`."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            self.rows.append(len(args[1]))
        return func(*args, **(kwargs or {}))


def attention(dtype: torch.dtype = torch.float64, *, qkv_bias: bool = True, **fields: Any) -> tuple[Attention, Tensor]:
    """The attention of one block with four heads of width 10, and its input."""
    model = perturbed(make(depth=1, qkv_bias=qkv_bias, attention=AttentionConfig(**fields))).to(dtype)
    return model.blocks[0].attn, noise(2, 9, 40, dtype=dtype).requires_grad_()


def results(attn: Attention, x: Tensor) -> list[Tensor]:
    """The output, and the gradients of the input and of every parameter."""
    out = attn(x)
    return [out, *torch.autograd.grad(out.float().square().sum(), [x, *attn.parameters()])]


@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("fields", GATES, ids=str)
def test_one_product_equals_separate_layers(fields: dict[str, Any], qkv_bias: bool) -> None:
    attn, x = attention(qkv_bias=qkv_bias, **fields)
    with LinearCalls() as joined:
        one = results(attn, x)
    with called_separately([attn.qkv]), LinearCalls() as separate:
        other = results(attn, x)
    gate_rows = attn.gate.out_features
    assert separate.rows == [120, gate_rows, 40]
    assert joined.rows == [120 + gate_rows + -gate_rows % ROW_MULTIPLE, 40]
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("fields", GATES, ids=str)
def test_dtypes_under_autocast_are_those_of_separate_layers(fields: dict[str, Any]) -> None:
    attn, x = attention(torch.float32, **fields)
    with torch.autocast("cpu", torch.bfloat16):
        one = results(attn, x)
        with called_separately([attn.gate]):
            other = results(attn, x)
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=3e-2, atol=3e-2 * float(b.abs().max()))


@pytest.mark.parametrize("name", ["qkv", "gate"])
def test_hooks_of_users_run(name: str) -> None:
    attn, x = attention(gate="headwise")
    expected, outputs = attn(x), []
    layer = getattr(attn, name)
    handle = layer.register_forward_hook(lambda *call: outputs.append(call[2]))
    torch.testing.assert_close(attn(x), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(outputs[0], layer(x.detach()))
    handle.remove()
    attn(x)
    assert len(outputs) == 2  # the second is the direct call above


def test_a_frozen_gate_gets_no_gradient() -> None:
    attn, x = attention(gate="headwise", gate_frozen=True)
    attn(x).sum().backward()
    assert attn.gate.weight.grad is None
    assert torch.isfinite(attn.qkv.weight.grad).all()


class Adapted(nn.Linear):
    """A linear layer that computes more than `F.linear` with its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_layers_that_were_replaced_are_called() -> None:
    """A subclass, a new `forward`, a parametrized weight, and a weight of another type, as of sharded layers."""
    attn, x = attention(gate="headwise")
    expected = attn(x)
    assert is_plain_linear(attn.gate)
    plain, attn.gate = attn.gate, Adapted(40, 4).double()
    attn.gate.load_state_dict({name: p / 2 for name, p in plain.state_dict().items()})
    assert not is_plain_linear(attn.gate)
    torch.testing.assert_close(attn(x), expected, rtol=1e-12, atol=1e-12)
    attn.gate = plain
    forward = plain.forward
    plain.forward = lambda x: forward(x) + 1
    assert not torch.allclose(attn(x), expected)
    del plain.forward
    parametrizations.weight_norm(attn.qkv)
    assert not is_plain_linear(attn.qkv)
    torch.testing.assert_close(attn(x), expected, rtol=1e-12, atol=1e-12)

    class Sharded(nn.Parameter):
        pass

    plain.weight = Sharded(plain.weight.data)
    assert not is_plain_linear(plain)


def test_stacked_rows_follow_each_other_and_end_with_zeros() -> None:
    first, second = nn.Linear(3, 6, bias=False), nn.Linear(3, 4)
    weight, bias = stacked_rows(first, second)
    assert torch.equal(weight, torch.cat([first.weight, second.weight, torch.zeros(6, 3)]))
    assert torch.equal(bias, torch.cat([torch.zeros(6), second.bias, torch.zeros(6)]))
    assert stacked_rows(first)[1] is None
