"""Closed-form identities of sinks and gates, in float64, forward and in gradients."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from variants import noise

from sinkablate.attention.core import AttentionCore
from sinkablate.attention.module import Attention, TimmAttention
from sinkablate.config import AttentionConfig

B, H, N, D = 2, 3, 11, 10
FUSED = pytest.mark.parametrize("fused", [True, False], ids=["fused", "explicit"])


def qkv(sharp: float = 3.0) -> list[Tensor]:
    return [(sharp * noise(B, H, N, D, seed=i, dtype=torch.float64)).requires_grad_() for i in range(3)]


def core_of(**fields: Any) -> AttentionCore:
    core = AttentionCore(AttentionConfig(**fields), H, D).double()
    for i, p in enumerate(core.parameters()):
        p.data = noise(*p.shape, seed=10 + i, dtype=torch.float64)
    return core


def agree(one: Tensor, other: Tensor, inputs: list[Tensor]) -> None:
    """Equal forward to 1e-12 and in the gradients of a random projection to 1e-11."""
    assert (one - other).abs().max() <= 1e-12
    direction = noise(*one.shape, seed=5, dtype=torch.float64)
    gradients = [torch.autograd.grad((x * direction).sum(), inputs) for x in (one, other)]
    for a, b in zip(*gradients, strict=True):
        assert a.abs().max() > 0
        assert (a - b).abs().max() <= 1e-11


@FUSED
@pytest.mark.parametrize("sink", ["zero", "learned"])
def test_sink_in_the_denominator_is_a_sigmoid_of_the_logsumexp(sink: str, fused: bool) -> None:
    """exp(s) / (exp(c) + sum exp(s)) = softmax(s) sigma(LSE - c), with c = 0 for the zero sink."""
    q, k, v = qkv()
    core = core_of(sink=sink)
    c = core.sink_logit if sink == "learned" else torch.zeros(H, dtype=torch.float64)
    s = q @ k.transpose(-2, -1) / D**0.5
    expected = torch.sigmoid(s.logsumexp(-1, keepdim=True) - c[:, None, None]) * (s.softmax(-1) @ v)
    agree(core(q, k, v, fused=fused), expected, [q, k, v, *core.parameters()])


@FUSED
def test_learned_sink_at_zero_is_the_zero_sink(fused: bool) -> None:
    q, k, v = qkv()
    learned = AttentionCore(AttentionConfig(sink="learned"), H, D).double()
    agree(learned(q, k, v, fused=fused), core_of(sink="zero")(q, k, v, fused=fused), [q, k, v])


@FUSED
def test_kv_bias_is_plain_softmax_over_one_more_token(fused: bool) -> None:
    q, k, v = qkv()
    core = core_of(sink="kv_bias")
    more_k = torch.cat((k, core.sink_key.expand(B, H, 1, D)), dim=2)
    more_v = torch.cat((v, core.sink_value.expand(B, H, 1, D)), dim=2)
    expected = (q @ more_k.transpose(-2, -1) / D**0.5).softmax(-1) @ more_v
    agree(core(q, k, v, fused=fused), expected, [q, k, v, *core.parameters()])


def test_clipping_without_stretch_is_softmax() -> None:
    q, k, v = qkv()
    agree(core_of(score="clipped_softmax", clip_alpha=0.0)(q, k, v), core_of()(q, k, v), [q, k, v])


@FUSED
@pytest.mark.parametrize("sink", ["zero", "learned"])
@pytest.mark.parametrize("size", [1e4, -1e4, 1e30])
def test_huge_logits_stay_finite(sink: str, size: float, fused: bool) -> None:
    """Large positive logits give plain softmax, large negative logits give zero; neither gives NaN."""
    q = torch.ones(1, H, N, D, requires_grad=True)
    k = (torch.full((1, H, N, D), size / D**0.5)).requires_grad_()
    v = noise(1, H, N, D).requires_grad_()
    out = AttentionCore(AttentionConfig(sink=sink), H, D)(q, k, v, fused=fused)
    expected = v.mean(2, keepdim=True).expand_as(out) if size > 0 else torch.zeros_like(out)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)
    out.sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in (q, k, v))


@pytest.mark.parametrize("sink", ["zero", "learned"])
def test_the_sink_takes_its_share_before_dropout(sink: str) -> None:
    """Dropout zeroes weights and scales the others by 1 / (1 - p), after the sink has taken its share."""
    q, k, _ = qkv()
    core = core_of(sink=sink)
    eye = torch.eye(N, dtype=torch.float64).expand(B, H, N, N)  # so that the output equals the weights
    extended_v = eye[..., :D]
    torch.manual_seed(0)
    dropped = core(q, k, extended_v, dropout_p=0.4, fused=False)
    weights = core.weights(q, core.columns(k, extended_v)[0])[..., :D]
    kept = dropped != 0
    assert 0.4 < kept.double().mean() < 0.8
    torch.testing.assert_close(dropped[kept], weights[kept] / 0.6, rtol=1e-12, atol=0)
    assert (core.weights(q, core.columns(k, extended_v)[0])[..., :N].sum(-1) < 1).all()


def attention(**fields: Any) -> tuple[Attention, Tensor]:
    torch.manual_seed(0)
    timms = TimmAttention(H * D, num_heads=H, qkv_bias=True).double()
    module = Attention.from_timm(timms, AttentionConfig(**fields)).double()
    for i, p in enumerate(module.parameters()):
        p.data = 0.3 * noise(*p.shape, seed=i, dtype=torch.float64)
    return module, noise(B, N, H * D, seed=9, dtype=torch.float64).requires_grad_()


def by_hand(module: Attention, x: Tensor) -> Tensor:
    """The gated attention of the papers, one head at a time."""
    q, k, v = module.qkv(x).chunk(3, dim=-1)
    gate = torch.sigmoid(x @ module.gate.weight.T + module.gate.bias)
    per_head = gate.shape[-1] // H
    outs = []
    for h in range(H):
        part = slice(h * D, (h + 1) * D)
        g = gate[..., h * per_head : (h + 1) * per_head]
        values = v[..., part] * g if module.config.gate_position == "value" else v[..., part]
        out = (q[..., part] @ k[..., part].mT / D**0.5).softmax(-1) @ values
        outs.append(out if module.config.gate_position == "value" else out * g)
    return F.linear(torch.cat(outs, dim=-1), module.proj.weight, module.proj.bias)


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
@pytest.mark.parametrize("position", ["output", "value"])
def test_gates_equal_the_formula_of_the_paper(gate: str, position: str) -> None:
    module, x = attention(gate=gate, gate_position=position)
    agree(module(x), by_hand(module, x), [x, *module.parameters()])


@pytest.mark.parametrize("gate", ["headwise", "elementwise"])
@pytest.mark.parametrize("position", ["output", "value"])
def test_a_fully_open_gate_changes_nothing(gate: str, position: str) -> None:
    gated, x = attention(gate=gate, gate_position=position)
    gated.gate.weight.data.zero_()
    gated.gate.bias.data.fill_(50.0)  # sigma(50) = 1 in float64
    plain, _ = attention()
    plain.load_state_dict({k: v for k, v in gated.state_dict().items() if "gate" not in k})
    agree(gated(x), plain(x), [x])


def test_attention_takes_no_mask() -> None:
    module, x = attention()
    with pytest.raises(ValueError, match="mask"):
        module(x, attn_mask=torch.zeros(N, N))
