"""FlexAttention computes the same as the explicit path, forward and in gradients, and is chosen only where it can run.

On a CPU, PyTorch refuses gradients of FlexAttention, although its reference implementation has them. The fixture
`gradients_on_cpu` removes this check, so that the formulas are tested here; `tests/test_gpu_kernels.py` tests
the kernels.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention
from variants import flex_forms, noise

from sinkablate.attention import flex
from sinkablate.attention.core import AttentionCore
from sinkablate.attention.exponential import POINTWISE_LOG, log_even_power, log_power, log_softplus
from sinkablate.attention.scores import POINTWISE
from sinkablate.config import AttentionConfig

B, H, N, D = 2, 3, 19, 10
FORMS = flex_forms(polynomial_power=2, pointwise_alpha=0.5)
forms = pytest.mark.parametrize("fields", FORMS, ids=str)


@pytest.fixture(autouse=True)
def fresh_compiler() -> None:
    torch._dynamo.reset()


@pytest.fixture
def gradients_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)


def core_of(dtype: torch.dtype = torch.float64, **fields: Any) -> AttentionCore:
    core = AttentionCore(AttentionConfig(**fields), H, D).to(dtype)
    for i, p in enumerate(core.parameters()):
        p.data = noise(*p.shape, seed=10 + i, dtype=dtype)
    return core


def qkv(n: int = N, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries, keys and values; one query is zero, and all logits of five other queries are negative."""
    q, k, v = (noise(B, H, n, D, seed=i, dtype=dtype) for i in range(3))
    q[0, 0, 0] = 0
    k[1, 1], q[1, 1, :5] = k[1, 1].abs(), -q[1, 1, :5].abs()
    return [q, k, v]


def error(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the largest value; NaN if there is one."""
    return float((one - other).abs().max() / other.abs().max())


@torch.no_grad()
@forms
def test_the_output_is_that_of_the_explicit_path(fields: dict[str, Any]) -> None:
    core, inputs = core_of(kernel="flex", **fields), qkv()
    assert error(core.forward_flex(*inputs), core(*inputs, fused=False)) <= 2e-15


@forms
@pytest.mark.usefixtures("gradients_on_cpu")
def test_gradients_are_those_of_the_explicit_path(fields: dict[str, Any]) -> None:
    """Also where every weight of a row is zero, and where a logit is exactly zero."""
    core, inputs = core_of(**fields), [x.requires_grad_() for x in qkv()]
    direction = noise(B, H, N, D, seed=5, dtype=torch.float64)
    sought = [*inputs, *core.parameters()]
    expected = torch.autograd.grad((core(*inputs, fused=False) * direction).sum(), sought)
    gradients = torch.autograd.grad((core.forward_flex(*inputs) * direction).sum(), sought)
    for gradient, correct in zip(gradients, expected, strict=True):
        assert error(gradient, correct) <= 1e-14


@pytest.mark.usefixtures("gradients_on_cpu")
@pytest.mark.parametrize("fields", [{"score": "relu"}, {"score": "pointwise", "pointwise_function": "relu2"}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_without_weights_are_exactly_zero(fields: dict[str, Any], dtype: torch.dtype) -> None:
    q, k, v = (x.requires_grad_() for x in qkv(dtype=dtype))
    out = core_of(dtype, **fields).forward_flex(q, k, v)
    assert out.dtype == dtype
    assert (out[1, 1, :5] == 0).all()
    assert (out[0, 0, 0] == 0).all()
    assert out.abs().max() > 0
    out.float().square().sum().backward()
    assert (q.grad[1, 1, :5] == 0).all()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))


@pytest.mark.parametrize("fields", [{"sink": "learned"}, {"score": "relu"}, *FORMS[4:6]], ids=str)
@pytest.mark.usefixtures("gradients_on_cpu")
def test_it_compiles_without_graph_breaks_for_any_number_of_tokens(fields: dict[str, Any]) -> None:
    core = core_of(**fields)
    compiled = torch.compile(core.forward_flex, backend="aot_eager", fullgraph=True)
    for n in (12, 17, 23):  # the second makes the length symbolic, so the third compiles nothing
        inputs = [x.requires_grad_() for x in qkv(n)]
        with torch.compiler.set_stance("fail_on_recompile" if n == 23 else "default"):
            out = compiled(*inputs)
        expected = core(*inputs, fused=False)
        assert error(out, expected) <= 1e-14
        pairs = [torch.autograd.grad(x.square().mean(), [*inputs, *core.parameters()]) for x in (out, expected)]
        # the compiled backward pass of FlexAttention computes in float32
        assert all(error(one, other) <= 1e-6 for one, other in zip(*pairs, strict=True))


@pytest.mark.usefixtures("gradients_on_cpu")
@pytest.mark.parametrize("fields", [{"sink": "learned"}, {"score": "sigmoid", "sigmoid_bias": "learned"}], ids=str)
def test_nothing_that_is_learned_is_captured_by_the_kernel(fields: dict[str, Any], monkeypatch: Any) -> None:
    """Gradients of captured tensors would be summed in an order that differs from run to run."""
    captured: list[Tensor] = []
    attend = flex_attention.flex_attention

    def recording(*args: Any, score_mod: Any = None, **kwargs: Any) -> Any:
        cells = getattr(score_mod, "__closure__", None) or ()
        captured.extend(cell.cell_contents for cell in cells if isinstance(cell.cell_contents, Tensor))
        return attend(*args, score_mod=score_mod, **kwargs)

    monkeypatch.setattr(flex_attention, "flex_attention", recording)
    core = core_of(**fields)
    core.forward_flex(*qkv())
    assert not any(tensor.requires_grad for tensor in captured)
    assert len(captured) == ("score" in fields)  # the logarithm of N


@forms
@pytest.mark.parametrize("kernel", ["auto", "flex"])
def test_a_cpu_computes_explicitly(fields: dict[str, Any], kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "MIN_TOKENS", 1)
    inputs = qkv()
    core, explicit = core_of(kernel=kernel, **fields), core_of(kernel="explicit", **fields)
    assert torch.equal(core(*inputs), explicit(*inputs))
    compiled = torch.compile(core, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*inputs), explicit(*inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("name", "log"), POINTWISE_LOG.items())
def test_logarithms_are_exact_and_their_gradients_finite(name: str, log: Any) -> None:
    s = torch.tensor([-1e30, -1e3, -100, -20.1, -19.9, -1, -1e-40, 0, 1e-40, 1e-20, 0.5, 19.9, 20.1, 1e3, 1e30])
    for dtype, limit in ((torch.float64, 1e-15), (torch.float32, 1e-6)):
        x = s.to(dtype).requires_grad_()
        y = log(x)
        torch.testing.assert_close(y.exp(), POINTWISE[name](x), rtol=1e3 * limit, atol=limit)
        assert torch.isfinite(torch.autograd.grad(y.sum(), x)[0]).all()


def test_logarithms_of_small_weights_are_exact_where_the_weights_themselves_are_not() -> None:
    s = torch.tensor([-800.0, -30.0, -20.0, -5.0], dtype=torch.float64)
    exact = torch.where(s < -10, s - s.exp() / 2 + 5 * (2 * s).exp() / 24, F.softplus(s).log())
    torch.testing.assert_close(log_softplus(s), exact, rtol=1e-15, atol=0)
    powers = torch.tensor([-2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(log_power(powers, 3).exp(), torch.tensor([0.0, 27.0], dtype=torch.float64))
    torch.testing.assert_close(log_even_power(powers, 4).exp(), torch.tensor([16.0, 81.0], dtype=torch.float64))
