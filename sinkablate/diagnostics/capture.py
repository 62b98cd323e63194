"""The tensors that the hooks of one block capture, the view made of them, and its check against the model's output."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.attention.module import Attention
from sinkablate.diagnostics.view import BlockView, Weigh, chunks
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import BlockParts
from sinkablate.vit.tokens import TokenLayout, TokenType

HIDDEN = -1e30
"""Logit of a column that a query cannot attend to; smaller than any that a model computes, and finite."""


@dataclass
class Capture:
    """Tensors of one block during one forward pass; created when the block starts."""

    x: Tensor
    """The block's input (B, N, D)."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    """Arguments of the attention function, including q, k, v (B, H, N, d), and its output `out`; exactly one call is
    supported."""
    qkv: Tensor | None = None
    """Output of the qkv map of this package's attention, before a value gate (B, N, 3 H d)."""
    gate: Tensor | None = None
    """Gate logits (B, N, H or H d)."""
    attn_out: Tensor | None = None
    """Output of the attention module, before LayerScale (B, N, D)."""
    pathway: Tensor | None = None
    """Output of a pathway parallel to the attention (B, N, D)."""
    mid: Tensor | None = None
    """Residual stream after the attention update (B, N, D)."""


def block_view(
    index: int, parts: BlockParts, capture: Capture, layout: TokenLayout, token_types: Tensor | None = None
) -> BlockView:
    """Build the view of a block that has just run.

    Args:
        index: Index of the block.
        parts: Its parts.
        capture: What its hooks captured.
        layout: The sequence of tokens.
        token_types: Types of the tokens of texts, (B, N).

    Raises:
        UserError: The block did not call attention exactly once, or in a way that is not supported.
    """
    family = f"{type(parts.attn).__module__}.{type(parts.attn).__name__}"
    if len(capture.calls) != 1:
        off = "" if getattr(parts.attn, "fused_attn", True) else ", fused attention is off (TIMM_FUSED_ATTN=0?)"
        raise UserError(
            f"{family} cannot be measured: block {index} made {len(capture.calls)} calls to "
            f"scaled_dot_product_attention instead of one{off}"
        )
    call = capture.calls[0]
    out_map = _out_map(parts)
    if isinstance(parts.attn, Attention):
        return _own_view(index, parts.attn, capture, layout, out_map)
    gate = None
    if capture.gate is not None:
        batch, n, _ = capture.gate.shape
        gate = capture.gate.sigmoid().view(batch, n, parts.num_heads, -1).transpose(1, 2)
    q, k, v = call["q"], *(per_query_head(call[name], parts.num_heads) for name in "kv")
    extra = (TokenType.NULL,) * (k.shape[2] - layout.num_tokens)
    visible = _visible(call, family)
    logits = _logits_of(call, visible)
    return BlockView(
        index=index,
        layout=layout,
        extra=extra,
        q=q,
        k=k,
        v=v,
        weigh=lambda *rows: logits(*rows).softmax(dim=-1),
        out_map=out_map,
        residual=capture.x,
        logits=logits,
        output=call["out"],
        update=capture.attn_out,
        gate=gate,
        takes_null=bool(extra),
        visible=visible,
        token_types=token_types,
    )


def per_query_head(x: Tensor, num_heads: int) -> Tensor:
    """Return the keys or values of every query head, (B, G, M, d) -> (B, H, M, d); H / G heads share each."""
    groups = x.shape[1]
    return x if groups == num_heads else x.repeat_interleave(num_heads // groups, dim=1)


def _visible(call: dict[str, Any], family: str) -> Tensor | None:
    """Return which queries can attend to which columns, (N, M) bool; None if all can attend to all.

    Raises:
        UserError: This differs between texts or heads, as with padding.
    """
    n, m, mask = call["q"].shape[2], call["k"].shape[2], call.get("attn_mask")
    if call.get("is_causal"):
        return torch.ones(n, m, dtype=torch.bool, device=call["q"].device).tril() if n > 1 else None
    if mask is None:
        return None
    visible: Tensor = mask if mask.dtype is torch.bool else mask > HIDDEN
    if visible.all():
        return None
    one = visible.reshape(-1, *visible.shape[-2:])[0].expand(n, m)
    if not (visible == one).all():
        raise UserError(f"{family} cannot be measured: its mask differs between texts or heads (are the texts padded?)")
    return one


def _out_map(parts: BlockParts) -> Tensor:
    """Return diag(gamma) W_O split into heads, (H, D, d)."""
    w = parts.out_weight.detach()
    if parts.gamma is not None:
        w = w * parts.gamma.detach()[:, None]
    return w.reshape(w.shape[0], parts.num_heads, -1).transpose(0, 1)


def _logits_of(call: dict[str, Any], visible: Tensor | None) -> Weigh:
    """Return a function for the logits of one fused call, with its scale and its additive mask.

    The logits of columns that a query cannot attend to are `HIDDEN`, so that they are finite and their weights zero.
    """
    batch, heads, n, width = call["q"].shape
    scale = call.get("scale") or width**-0.5
    mask = _added(call.get("attn_mask"), visible, call["q"].dtype)
    mask = None if mask is None else mask.expand(batch, heads, n, call["k"].shape[2])

    def logits(q: Tensor, k: Tensor, images: slice, heads: slice) -> Tensor:
        s = (q * scale) @ k.transpose(-2, -1)
        return s if mask is None else s.add_(mask[images, heads])

    return logits


def _added(mask: Tensor | None, visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the finite mask that is added to the logits, from that of the call and from what is visible; or None."""
    if mask is not None and mask.dtype is not torch.bool:
        return mask if visible is None else mask.clamp_min(HIDDEN)
    if visible is None:
        return None
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, HIDDEN)


def _own_view(index: int, attn: Attention, capture: Capture, layout: TokenLayout, out_map: Tensor) -> BlockView:
    """Return the view of sinkablate's own attention, whose core provides the formula and the extra column."""
    call, core = capture.calls[0], attn.core
    k, v = core.columns(call["k"], call["v"])
    gate = None if capture.gate is None else attn.openness(capture.gate)
    gates_values = gate is not None and attn.config.gate_position == "value"
    raw_v = None
    if gates_values and capture.qkv is not None:
        batch, n, _ = capture.qkv.shape
        raw = capture.qkv.view(batch, n, 3, attn.num_heads, attn.head_dim)[:, :, 2].transpose(1, 2)
        raw_v = core.columns(call["k"], raw)[1]
    return BlockView(
        index=index,
        layout=layout,
        extra=tuple(TokenType[name.upper()] for name in core.extra_columns),
        q=call["q"],
        k=k,
        v=v,
        weigh=lambda q, k, _images, heads: core.weights(q, k, heads),
        out_map=out_map,
        residual=capture.x,
        logits=(lambda q, k, _images, heads: core.logits(q, k, heads)) if core.score.is_softmax else None,
        output=call["out"],
        update=capture.attn_out,
        gate=gate,
        gates_values=gates_values,
        raw_v=raw_v,
        rows_sum_to_one=core.rows_sum_to_one,
        rows_at_most_one=core.rows_at_most_one,
        takes_null=core.takes_null,
    )


def rebuild_error(view: BlockView, parts: BlockParts, capture: Capture) -> float:
    """Return the relative error of the attention update rebuilt from the view's weights, values, gate and output map.

    It is the larger of two: the update before LayerScale with the attention module's own output, and block
    input plus update with the residual stream the MLP receives. Together they prove q, k, v, the weights, the gate,
    W_O and LayerScale. The second is relative to the update, because relative to the stream an update with a LayerScale
    of 1e-5 would be invisible; the rounding error of the stream is subtracted.
    """
    if capture.attn_out is None or capture.mid is None or (parts.pathway is not None and capture.pathway is None):
        return float("inf")
    heads = torch.empty_like(view.q)
    for images, part in chunks(view):
        heads[images, part] = view.weights(images, part) @ view.v[images, part]
    if view.gate is not None and not view.gates_values:
        heads = heads * view.gate
    weight, bias = parts.out_weight, parts.out_bias
    update = F.linear(heads.transpose(1, 2).flatten(2), weight, bias)
    written = torch.einsum("bhnd,hcd->bnc", heads, view.out_map)
    if bias is not None:
        written = written + (bias if parts.gamma is None else bias * parts.gamma)
    rounding = torch.finfo(view.q.dtype).eps * float(capture.mid.norm())
    before = capture.x if capture.pathway is None else capture.x + capture.pathway
    return max(
        _relative(update, capture.attn_out, capture.attn_out),
        _relative(before + written, capture.mid, written, forgiven=rounding),
    )


def _relative(rebuilt: Tensor, own: Tensor, size: Tensor, forgiven: float = 0.0) -> float:
    """Return the Frobenius norm of the difference, minus `forgiven`, over that of `size`; NaN counts as infinite."""
    if rebuilt.shape != own.shape:
        return float("inf")
    difference = ((rebuilt - own).norm() - forgiven).clamp_min(0)
    error = float(difference / size.norm().clamp_min(torch.finfo(own.dtype).tiny))
    return error if math.isfinite(error) else math.inf
