"""A global pathway beside attention, and the measure of what an update writes to all tokens alike.

Axis letters: B images, N tokens, D model width, K width of the global state.
"""

from typing import Self

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from sinkablate.config import PathwayConfig
from sinkablate.errors import UserError

FLOOR = 1e-12
"""Added to E(o), so that an update of zero scores zero."""


def energy(x: Tensor) -> Tensor:
    """E: mean squared entry, scalar."""
    return x.square().mean()


def common_mode(update: Tensor) -> Tensor:
    """Share of an update's energy that is common to all tokens, E(mean_i o_i) / (E(o) + 1e-12), scalar.

    One for a pure common update, 1/N for an uncorrelated one. Gradients flow through numerator and denominator: the
    gradient is orthogonal to the update, which cannot be made cheap by making it small.

    Args:
        update: o (B, N, D), after W_O and LayerScale.
    """
    return energy(update.mean(1)) / (energy(update) + FLOOR)


class GlobalPathway(nn.Module):
    """o_i = gamma_i W_OG g with g = sum_j pi_j W_VG x_j: a rank-one update that no position enters.

    pi = softmax_j(w_P . x_j), gamma_i = sigmoid(w_gamma . x_i + b_gamma). g is permutation-invariant, the update
    equivariant.

    Args:
        config: Width K of the global state, and b_gamma at the start.
        dim: D.
    """

    def __init__(self, config: PathwayConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.pool = nn.Linear(dim, 1, bias=False)
        self.value = nn.Linear(dim, config.width, bias=False)
        self.proj = nn.Linear(config.width, dim, bias=False)
        self.gate = nn.Linear(dim, 1)

    def state(self, x: Tensor) -> Tensor:
        """g (B, 1, K) of normed tokens x (B, N, D)."""
        return self.pool(x).softmax(dim=1).mT @ self.value(x)

    def openness(self, x: Tensor) -> Tensor:
        """gamma (B, N, 1) of normed tokens."""
        return torch.sigmoid(self.gate(x))

    def forward(self, x: Tensor) -> Tensor:
        """Update (B, N, D) of normed tokens x (B, N, D)."""
        return self.openness(x) * self.proj(self.state(x))


class PathwayBlock(Block):
    """timm's pre-norm block with the pathway's update beside attention's: after LayerScale, before drop-path."""

    pathway: GlobalPathway

    @classmethod
    def from_timm(cls, block: Block, config: PathwayConfig) -> Self:
        """Take over a timm block's modules."""
        self = cls.__new__(cls)
        nn.Module.__init__(self)
        for name, module in block.named_children():
            self.add_module(name, module)
        self.pathway = GlobalPathway(config, block.attn.proj.out_features)
        return self

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Residual stream (B, N, D) to residual stream."""
        if attn_mask is not None or is_causal:
            raise UserError("model.backbone.pathway: masked attention is not supported")
        normed = self.norm1(x)
        x = x + self.drop_path1(self.ls1(self.attn(normed)) + self.pathway(normed))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
