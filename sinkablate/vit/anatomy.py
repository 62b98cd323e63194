"""Where a timm model keeps its blocks, and a block its attention: the one place that knows the families."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from timm.layers import LayerScale
from torch import Tensor, nn

from sinkablate.errors import UserError


@runtime_checkable
class HasBackbone(Protocol):
    """What a task offers to diagnostics: its original, uncompiled timm model."""

    backbone: nn.Module


@dataclass(frozen=True)
class BlockParts:
    """The pieces of one pre-norm block, x + gamma * attn(norm1(x)) and then the MLP behind `norm2`."""

    block: nn.Module
    attn: nn.Module
    """Its output is the attention update before LayerScale, (B, N, D)."""
    proj: nn.Linear
    """W_O, (D, H d)."""
    gamma: Tensor | None
    """LayerScale (D,), None where there is none."""
    norm2: nn.Module
    """Its input is the residual stream after the attention update."""
    gate: nn.Module | None
    """Linear map to gate logits, where the attention has one."""
    num_heads: int


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """The transformer blocks, first to last.

    Raises:
        UserError: The model has no `blocks`.
    """
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or len(blocks) == 0:
        raise UserError(f"{type(model).__name__} cannot be measured: it has no list of transformer blocks")
    return list(blocks)


def block_parts(model: nn.Module, index: int) -> BlockParts:
    """Pieces of block `index`.

    Raises:
        UserError: The block is of a family that cannot be measured; the message names it.
    """
    block = blocks_of(model)[index]
    family = f"{type(model).__name__} ({type(block).__name__})"
    attn, norm2 = getattr(block, "attn", None), getattr(block, "norm2", None)
    proj = getattr(attn, "proj", None)
    if attn is None or norm2 is None or not isinstance(proj, nn.Linear):
        raise UserError(f"{family} cannot be measured: block {index} is not attention and MLP in sequence")
    if not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity):
        raise UserError(f"{family} cannot be measured: a norm between the heads and W_O mixes them, "
                        "so that no head has an update of its own")
    scale = getattr(block, "ls1", None)
    gamma = scale.gamma if isinstance(scale, LayerScale) else getattr(block, "gamma_1", None)
    return BlockParts(block, attn, proj, gamma, norm2, getattr(attn, "gate", None), int(attn.num_heads))
