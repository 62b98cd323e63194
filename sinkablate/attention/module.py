"""The one attention module, for every mechanism, with timm's names.

Axis letters: B images, N tokens, D model width, H heads, d head width, M key columns (N or N + 1).
"""

import math
from typing import Self

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from torch import Tensor, nn

from sinkablate.attention.scores import weights_from_logits
from sinkablate.config import AttentionConfig
from sinkablate.errors import UserError


def with_column(tokens: Tensor, column: Tensor) -> Tensor:
    """Append one column (1 or H, 1, 1 or d) to keys or values (B, H, N, d): (B, H, N + 1, d).

    One concatenation reads the strided q, k, v once; padding them would fill and copy.
    """
    batch, heads, _, width = tokens.shape
    return torch.cat((tokens, column.to(tokens.dtype).expand(batch, heads, 1, width)), dim=2)


class AttentionCore(nn.Module):
    """q, k, v to the weighted sum of values: the one place that knows fused from explicit.

    A forward hook on this module sees q, k and v as the mechanism uses them; `columns` and `weights` rebuild
    what it computed. Parameters exist only where the mechanism has them: `sink_logit` (H,), `sink_key` and
    `sink_value` (H, 1, d), `score_bias` (H,).
    """

    def __init__(self, config: AttentionConfig, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.config = config
        self.scale = head_dim**-0.5
        if config.sink == "learned":
            self.sink_logit = nn.Parameter(torch.zeros(num_heads))
        if config.sink == "kv_bias":
            self.sink_key = nn.Parameter(torch.zeros(num_heads, 1, head_dim))
            self.sink_value = nn.Parameter(torch.zeros(num_heads, 1, head_dim))
        if config.score == "sigmoid" and config.sigmoid_bias == "learned":
            self.score_bias = nn.Parameter(torch.zeros(num_heads))

    def columns(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values with the sink's column last, (B, H, M, d) each; a zero or learned sink's value is zero."""
        match self.config.sink:
            case "zero" | "learned":
                zero = k.new_zeros(1, 1, 1)
                return with_column(k, zero), with_column(v, zero)
            case "kv_bias":
                return with_column(k, self.sink_key), with_column(v, self.sink_value)
        return k, v

    def logits(self, q: Tensor, k: Tensor, heads: slice = slice(None)) -> Tensor:
        """Scaled logits (B, h, N, M), the sink's column included; arguments as in `weights`."""
        s = (q * self.scale) @ k.transpose(-2, -1)
        if self.config.sink == "learned":
            s = s + F.pad(self.sink_logit[heads, None, None], (k.shape[2] - 1, 0)).to(s.dtype)
        return s

    def weights(self, q: Tensor, k: Tensor, heads: slice = slice(None)) -> Tensor:
        """Explicit weights A (B, h, N, M) of queries (B, h, N, d) on the keys of `columns` (B, h, M, d).

        Args:
            q: Queries of the chosen heads.
            k: Keys of the chosen heads, sink column included.
            heads: Which of the H heads these are.
        """
        s = self.logits(q, k, heads)
        bias = self.score_bias[heads].to(s.dtype) if hasattr(self, "score_bias") else None
        return weights_from_logits(s, self.config, bias)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, fused: bool = True) -> Tensor:
        """Weighted values (B, H, N, d) of q, k, v (B, H, N, d); `fused` allows fused kernels where there are any."""
        if not fused or self.config.score != "softmax":
            k, v = self.columns(k, v)
            return F.dropout(self.weights(q, k), dropout_p) @ v
        if self.config.sink == "learned":
            return self._fused_learned_sink(q, k, v, dropout_p)
        k, v = self.columns(k, v)
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p)

    def _fused_learned_sink(self, q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
        """Fused softmax with exp(c_h) added to each row's denominator.

        c_h rides in one more head coordinate, 1 in every query and c_h sqrt(d) in the sink's key, so that no mask
        is needed and flash kernels serve; they want a head width that is a multiple of 8.
        """
        head_dim = q.shape[-1]
        width = -head_dim % 8 or 8
        q = torch.cat((q, F.pad(torch.ones_like(q[..., :1]), (0, width - 1))), dim=-1)
        logit = (self.sink_logit / self.scale)[None, :, None, None].to(k.dtype)
        sink = F.pad(logit, (head_dim, width - 1)).expand(k.shape[0], -1, -1, -1)
        k = torch.cat((F.pad(k, (0, width)), sink), dim=2)
        v = F.pad(v, (0, width, 0, 1))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=self.scale)
        return out[..., :head_dim]


class Attention(nn.Module):
    """timm's attention with any mechanism of `AttentionConfig`; the default configuration is timm's, bit for bit.

    Keeps timm's names (qkv, q_norm, k_norm, attn_drop, norm, gate, proj, proj_drop, num_heads, head_dim, attn_dim,
    scale, fused_attn), so checkpoints load both ways.
    """

    def __init__(self, attn: TimmAttention, config: AttentionConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads: int = attn.num_heads
        self.head_dim: int = attn.head_dim
        self.attn_dim: int = attn.attn_dim
        self.scale: float = attn.scale
        self.fused_attn: bool = attn.fused_attn
        self.qkv: nn.Linear = attn.qkv
        self.q_norm: nn.Module = attn.q_norm
        self.k_norm: nn.Module = attn.k_norm
        self.attn_drop: nn.Dropout = attn.attn_drop
        self.core = AttentionCore(config, self.num_heads, self.head_dim)
        self.norm: nn.Module = attn.norm
        self.gate = self._make_gate() if config.gate != "none" else None
        self.proj: nn.Linear = attn.proj
        self.proj_drop: nn.Dropout = attn.proj_drop

    @classmethod
    def from_timm(cls, attn: nn.Module, config: AttentionConfig) -> Self:
        """Take over a timm attention's weights.

        Raises:
            UserError: `attn` is not timm's plain attention, or already has a gate.
        """
        if type(attn) is not TimmAttention:
            raise UserError(
                f"model.backbone.attention: {type(attn).__module__}.{type(attn).__name__} "
                "is not timm's plain attention and cannot be changed"
            )
        if attn.gate is not None:
            raise UserError("model.backbone.attention: the model already has an attention gate")
        return cls(attn, config)

    def _make_gate(self) -> nn.Linear:
        per_head = 1 if self.config.gate == "headwise" else self.head_dim
        gate = nn.Linear(self.qkv.in_features, self.num_heads * per_head)
        nn.init.normal_(gate.weight, std=self.config.gate_init_std)
        nn.init.constant_(gate.bias, self.config.gate_init_bias)
        return gate.requires_grad_(not self.config.gate_frozen)

    def openness(self, gate_logits: Tensor) -> Tensor:
        """Gate logits (B, N, H) or (B, N, H d) to openness (B, H, N, 1) or (B, H, N, d)."""
        batch, n, _ = gate_logits.shape
        return gate_logits.sigmoid().view(batch, n, self.num_heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attention update (B, N, D) of normed tokens x (B, N, D)."""
        if attn_mask is not None or is_causal:
            raise ValueError("sinkablate's attention takes no mask")
        batch, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(batch, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        gate = None if self.gate is None else self.openness(self.gate(x))
        if gate is not None and self.config.gate_position == "value":
            v = v * gate
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = self.core(q, k, v, dropout_p, self.fused_attn)
        out = self.norm(out.transpose(1, 2).reshape(batch, n, self.attn_dim))
        if gate is not None and self.config.gate_position == "output":
            out = out * gate.transpose(1, 2).expand(-1, -1, -1, self.head_dim).reshape(batch, n, self.attn_dim)
        return self.proj_drop(self.proj(out))


def gate_parameters(gate: str, dim: int, num_heads: int, attn_dim: int) -> int:
    """Parameters a gate adds to one block: D H + H headwise, D² + D elementwise (with attn_dim = D)."""
    width = {"none": 0, "headwise": num_heads, "elementwise": attn_dim}[gate]
    return width * (dim + 1)


def widen_mlp(mlp: nn.Module, extra: int) -> int:
    """Widen a two-layer MLP's hidden layer by the nearest whole number of units to `extra` parameters.

    Each hidden unit brings 2 D + 1 parameters (2 D without biases); the difference is at most half of that.
    The new layers' weights are not drawn here.

    Returns:
        Parameters added minus `extra`.
    """
    fc1, fc2 = getattr(mlp, "fc1", None), getattr(mlp, "fc2", None)
    if not (
        isinstance(fc1, nn.Linear)
        and isinstance(fc2, nn.Linear)
        and fc1.out_features == fc2.in_features
        and isinstance(getattr(mlp, "norm", None), nn.Identity)
    ):
        raise UserError(f"model.backbone.match_parameters: {type(mlp).__name__} is not a plain two-layer MLP")
    unit = fc1.in_features + fc2.out_features + (fc1.bias is not None)
    units = math.floor(extra / unit + 0.5)
    hidden = fc1.out_features + units
    mlp.fc1 = nn.Linear(fc1.in_features, hidden, bias=fc1.bias is not None)
    mlp.fc2 = nn.Linear(hidden, fc2.out_features, bias=fc2.bias is not None)
    return units * unit - extra
