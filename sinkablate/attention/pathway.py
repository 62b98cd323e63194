"""The global pathway, and the common-mode share of an update.

Axis letters: B images, N tokens, D model width, K width of the global state.
"""

from collections.abc import Callable
from typing import Self

import torch
from timm.models.vision_transformer import Block
from torch import Generator, Tensor, nn
from torch.nn.init import trunc_normal_

from sinkablate.config import ConfigError, PathwayConfig

GATE_STD = 0.02
"""Standard deviation of the weights of the pathway's gate at initialization."""

GATE_LOGITS = {"learned": 1, "hierarchical": 3}
"""Number of logits per token of each gate."""

FLOOR = 1e-12
"""Added to E(o), so that the share of a zero update is zero."""


def energy(x: Tensor) -> Tensor:
    """Return the mean squared entry E(x), a scalar."""
    return x.square().mean()


def common_mode(update: Tensor) -> Tensor:
    """Return the share of an update's energy that all tokens have in common, E(mean_i o_i) / (E(o) + 1e-12), a scalar.

    The share is 1 for an update that is the same for all tokens and 1/N for an uncorrelated one. Gradients flow through
    the numerator and the denominator, so the gradient is orthogonal to the update and a model cannot lower the
    share by making the update small.

    Args:
        update: o (B, N, D), after W_O and LayerScale.
    """
    return energy(update.mean(1)) / (energy(update) + FLOOR)


class GlobalPathway(nn.Module):
    """Adds a rank-one update without positions: o_i = gamma_i W_OG g with g = sum_j pi_j W_VG x_j.

    pi = softmax_j(w_P . x_j). With `gating: learned`, gamma_i = sigmoid(w_gamma . x_i + b_gamma). With `gating:
    hierarchical`, one linear map gives three logits per token, (a, r_0, r_bc), and gamma_i = sigmoid(a_i)
    softmax(r_0, r_bc)_bc. The state g is invariant to the order of tokens, and the update is equivariant.

    Args:
        config: Width K of the global state, the gate, and b_gamma at initialization.
        dim: D.
    """

    def __init__(self, config: PathwayConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.pool = nn.Linear(dim, 1, bias=False)
        self.value = nn.Linear(dim, config.width, bias=False)
        self.proj = nn.Linear(config.width, dim, bias=False)
        self.gate = nn.Linear(dim, GATE_LOGITS[config.gating])

    @torch.no_grad()
    def reset_parameters(
        self, generator: Callable[[str], Generator], normal: Callable[..., Tensor] = trunc_normal_
    ) -> None:
        """Initialize the gate; the other linear maps follow the initialization of the model.

        Args:
            generator: Gives the random generator of each parameter name, relative to this module.
            normal: Initializer of the weights, called with `std` and `generator`.
        """
        normal(self.gate.weight, std=GATE_STD, generator=generator("gate.weight"))
        self.gate.bias.fill_(self.config.gate_init_bias)

    def state(self, x: Tensor) -> Tensor:
        """Return the global state g (B, 1, K) of normalized tokens x (B, N, D)."""
        return self.pool(x).softmax(dim=1).mT @ self.value(x)

    def openness(self, x: Tensor) -> Tensor:
        """Return gamma (B, N, 1) of normalized tokens x (B, N, D)."""
        logits = self.gate(x)
        opens = logits[..., :1].sigmoid()
        return opens if self.config.gating == "learned" else opens * logits[..., 1:].softmax(-1)[..., 1:]

    def forward(self, x: Tensor) -> Tensor:
        """Return the update (B, N, D) of normalized tokens x (B, N, D)."""
        return self.openness(x) * self.proj(self.state(x))


class PathwayBlock(Block):
    """timm's pre-norm block with a pathway, whose update joins attention's after LayerScale and before drop-path."""

    pathway: GlobalPathway

    @classmethod
    def from_timm(cls, block: Block, config: PathwayConfig) -> Self:
        """Make the block from one of timm's, whose modules it takes over."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.pathway = GlobalPathway(config, block.attn.proj.out_features)
        return self

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Map the residual stream (B, N, D) to the residual stream after the block."""
        if attn_mask is not None or is_causal:
            raise ConfigError("pathway: masked attention is not supported")
        normed = self.norm1(x)
        x = x + self.drop_path1(self.ls1(self.attn(normed)) + self.pathway(normed))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
