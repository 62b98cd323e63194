"""timm's attention module with a configurable score, sink and gate.

Axis letters: B images, N tokens, D model width, H heads, d head width.
"""

import math
from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from timm.layers import Attention as TimmAttention
from torch import Generator, Tensor, nn
from torch.nn.init import trunc_normal_

from sinkablate.attention.core import AttentionCore
from sinkablate.attention.linear import is_plain_linear, stacked_rows
from sinkablate.config import AttentionConfig, ConfigError


class Attention(nn.Module):
    """timm's attention with any mechanism of `AttentionConfig`; the default configuration equals timm's bit for bit.

    The names of timm's submodules and attributes are kept (qkv, q_norm, k_norm, attn_drop, norm, gate, proj, proj_drop,
    num_heads, head_dim, attn_dim, scale, fused_attn), so checkpoints load in both directions.
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
        """Make the module from timm's attention, whose submodules and weights it takes over.

        Raises:
            ConfigError: `attn` is not timm's plain attention, or already has a gate.
        """
        if type(attn) is not TimmAttention:
            raise ConfigError(
                f"attention: {type(attn).__module__}.{type(attn).__name__} is not timm's plain attention and "
                "cannot be changed"
            )
        if attn.gate is not None:
            raise ConfigError("attention: the model already has an attention gate")
        return cls(attn, config)

    def _make_gate(self) -> nn.Linear:
        per_head = 1 if self.config.gate == "headwise" else self.head_dim
        gate = nn.Linear(self.qkv.in_features, self.num_heads * per_head)
        nn.init.normal_(gate.weight, std=self.config.gate_init_std)
        nn.init.constant_(gate.bias, self.config.gate_init_bias)
        return gate.requires_grad_(not self.config.gate_frozen)

    @torch.no_grad()
    def reset_parameters(
        self, generator: Callable[[str], Generator], normal: Callable[..., Tensor] = trunc_normal_
    ) -> None:
        """Initialize the parameters that the mechanism adds to timm's attention: those of the core and the gate.

        Args:
            generator: Gives the random generator of each parameter name, relative to this module.
            normal: Initializer of the core's parameters, called with `std` and `generator`.
        """
        self.core.reset_parameters(lambda name: generator(f"core.{name}"), normal)
        if self.gate is not None:
            std = self.config.gate_init_std if self.config.gate_start == "scaled" else 0.0
            nn.init.normal_(self.gate.weight, std=std, generator=generator("gate.weight"))
            self.gate.bias.fill_(self.config.gate_init_bias)

    @torch.no_grad()
    def fold_gate(self) -> None:
        """Cancel the initial openness of a gate that starts as the identity, sigma(b) for every token and head.

        The map next to the gate is divided by it: the weight of W_O for a gate at the output, because W_O's bias is
        added after the gate, and W_V with its bias for a gate at the values. A sink's value has no gate and stays.
        """
        if self.gate is None or self.config.gate_start != "identity":
            return
        opening = 1 / (1 + math.exp(-self.config.gate_init_bias))
        if self.config.gate_position == "output":
            self.proj.weight.div_(opening)
            return
        for parameter in self.qkv.parameters():
            parameter[2 * self.attn_dim :].div_(opening)

    def openness(self, gate_logits: Tensor) -> Tensor:
        """Map gate logits (B, N, H) or (B, N, H d) to the openness of the gate (B, H, N, 1) or (B, H, N, d)."""
        batch, n, _ = gate_logits.shape
        return gate_logits.sigmoid().view(batch, n, self.num_heads, -1).transpose(1, 2)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Return the attention update (B, N, D) of normalized tokens x (B, N, D)."""
        if attn_mask is not None or is_causal:
            raise ValueError("sinkablate's attention does not support masks")
        batch, n, _ = x.shape
        *qkv, gate_logits = self._project(x)
        q, k, v = (part.view(batch, n, self.num_heads, self.head_dim).transpose(1, 2) for part in qkv)
        q, k = self.q_norm(q), self.k_norm(k)
        gate = None if gate_logits is None else self.openness(gate_logits)
        if gate is not None and self.config.gate_position == "value":
            v = v * gate
        dropout_p = self.attn_drop.p if self.training else 0.0
        out = self.core(q, k, v, dropout_p, self.fused_attn)
        out = self.norm(out.transpose(1, 2).reshape(batch, n, self.attn_dim))
        if gate is not None and self.config.gate_position == "output":
            out = (out.view(batch, n, self.num_heads, self.head_dim) * gate.transpose(1, 2)).flatten(2)
        return self.proj_drop(self.proj(out))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return q, k and v (B, N, H d) and the gate logits (B, N, H or H d), if there is a gate.

        qkv and gate read the same tokens, so one matrix product computes both, unless a layer has to be called.
        """
        if self.gate is None:
            return *self.qkv(x).chunk(3, dim=-1), None
        if not (is_plain_linear(self.qkv) and is_plain_linear(self.gate)):
            return *self.qkv(x).chunk(3, dim=-1), self.gate(x)
        weight, bias = stacked_rows(self.qkv, self.gate)
        sizes = [*3 * [self.attn_dim], self.gate.out_features]
        q, k, v, gate_logits, _ = F.linear(x, weight, bias).split([*sizes, len(weight) - sum(sizes)], dim=-1)
        return q, k, v, gate_logits
