"""The tensors that the hooks of one block capture, the view made of them, and its check against the model's output."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.attention.module import Attention
from sinkablate.diagnostics.chunks import chunks
from sinkablate.diagnostics.view import BlockView, Logits
from sinkablate.diagnostics.visibility import HIDDEN, Visibility
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import BlockParts
from sinkablate.vit.tokens import TokenLayout, TokenType

REBUILT_IMAGES = 8
"""Number of images of the first batch on which every block is rebuilt."""


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
    index: int,
    parts: BlockParts,
    capture: Capture,
    layout: TokenLayout,
    token_types: Tensor | None = None,
    visibility: Visibility | None = None,
) -> BlockView:
    """Build the view of a block that has just run.

    Args:
        index: Index of the block.
        parts: Its parts.
        capture: What its hooks captured.
        layout: The sequence of tokens.
        token_types: Types of the tokens of texts, (B, N).
        visibility: What is known about the masks of this batch and of earlier ones.

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
    if isinstance(parts.attn, Attention):
        return _own_view(index, parts, parts.attn, capture, layout)
    gate = None
    if capture.gate is not None:
        batch, n, _ = capture.gate.shape
        gate = capture.gate.sigmoid().view(batch, n, parts.num_heads, -1).transpose(1, 2)
    q, k, v = call["q"], *(per_query_head(call[name], parts.num_heads) for name in "kv")
    extra = (TokenType.NULL,) * (k.shape[2] - layout.num_tokens)
    visible = (visibility or Visibility()).of(index, call, family)
    return BlockView(
        index=index,
        layout=layout,
        extra=extra,
        q=q,
        k=k,
        v=v,
        out_map=parts.out_map,
        residual=capture.x,
        logits=_logits_of(call, visible),
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


def _logits_of(call: dict[str, Any], visible: Tensor | None) -> Logits:
    """Return the logits of one fused call, with its scale and its additive mask; `HIDDEN` for what is not visible."""
    scale = call.get("scale") or call["q"].shape[-1] ** -0.5
    return Logits(scale, _added(call.get("attn_mask"), visible, call["q"].dtype))


def _added(mask: Tensor | None, visible: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the finite mask that is added to the logits, from that of the call and from what is visible; or None."""
    if mask is not None and mask.dtype is not torch.bool:
        return mask if visible is None else mask.clamp_min(HIDDEN)
    if visible is None:
        return None
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, HIDDEN)


def _own_view(index: int, parts: BlockParts, attn: Attention, capture: Capture, layout: TokenLayout) -> BlockView:
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
        out_map=parts.out_map,
        residual=capture.x,
        logits=Logits(core.scale, core.logit_bias(k.shape[2])) if core.score.is_softmax else None,
        weigh=lambda q, k, _images, heads: core.weights(q, k, heads),
        output=call["out"],
        update=capture.attn_out,
        gate=gate,
        gates_values=gates_values,
        raw_v=raw_v,
        rows_sum_to_one=core.rows_sum_to_one,
        rows_at_most_one=core.rows_at_most_one,
        takes_null=core.takes_null,
    )


def rebuild_error(view: BlockView, parts: BlockParts, capture: Capture) -> Tensor:
    """Return the relative error of the attention update rebuilt from the view's weights, values, gate and output map.

    It is the larger of two: the update before LayerScale with the attention module's own output, and block
    input plus update with the residual stream the MLP receives. Together they prove q, k, v, the weights, the gate,
    W_O and LayerScale. The second is relative to the update, because relative to the stream an update with a LayerScale
    of 1e-5 would be invisible; the rounding error of the stream is subtracted.

    Of a large batch, the first `REBUILT_IMAGES` images are rebuilt.

    Returns:
        The error, a scalar; infinite if something is missing, or if it is not a number.
    """
    if capture.attn_out is None or capture.mid is None or (parts.pathway is not None and capture.pathway is None):
        return view.q.new_tensor(math.inf)
    count = min(len(view.q), REBUILT_IMAGES)
    heads = torch.empty_like(view.q[:count])
    for images, part, _ in chunks(view.q[:count], view.k, whole=True):
        heads[images, part] = view.weights(images, part) @ view.v[images, part]
    if view.gate is not None and not view.gates_values:
        heads = heads * view.gate[:count]
    weight, bias = parts.out_weight, parts.out_bias
    update = F.linear(heads.transpose(1, 2).flatten(2), weight, bias)
    written = torch.einsum("bhnd,hcd->bnc", heads, view.out_map)
    if bias is not None:
        written = written + (bias if parts.gamma is None else bias * parts.gamma)
    before = capture.x if capture.pathway is None else capture.x + capture.pathway
    mid = capture.mid[:count]
    rounding = torch.finfo(view.q.dtype).eps * mid.norm()
    own = capture.attn_out[:count]
    return torch.maximum(
        _relative(update, own, own), _relative(before[:count] + written, mid, written, forgiven=rounding)
    )


def _relative(rebuilt: Tensor, own: Tensor, size: Tensor, forgiven: float | Tensor = 0.0) -> Tensor:
    """Return the Frobenius norm of the difference, minus `forgiven`, over that of `size`; NaN counts as infinite."""
    if rebuilt.shape != own.shape:
        return own.new_tensor(math.inf)
    difference = ((rebuilt - own).norm() - forgiven).clamp_min(0)
    return (difference / size.norm().clamp_min(torch.finfo(own.dtype).tiny)).nan_to_num(math.inf, math.inf)
