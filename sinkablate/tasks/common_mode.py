"""The common-mode penalty on the part of attention's updates that all tokens have in common."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import FLOOR, common_mode, energy
from sinkablate.config import CommonModeConfig
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import blocks_of


class CommonModePenalty:
    """Collects the attention updates of a training pass (after LayerScale) and computes their common-mode share.

    Args:
        backbone: A timm ViT with or without a mechanism, or the transformer of a toy task, which has no LayerScale.
            Updates are collected in training mode only.
        config: The penalized blocks, and whether to take the update before the gate.

    Raises:
        UserError: No block is left to penalize, the blocks are not timm's plain blocks, or none has the output gate
            before which the update is to be taken.
    """

    def __init__(self, backbone: nn.Module, config: CommonModeConfig) -> None:
        self.weight = config.weight
        self._updates: list[Tensor] = []
        self._checked_size = False
        total = len(blocks_of(backbone))
        blocks: list[Any] = list(blocks_of(backbone))[config.skip :]
        self._blocks = len(blocks)
        if not blocks:
            raise UserError(f"model.common_mode.skip={config.skip} leaves no block to penalize: the model has {total}")
        if config.before_gate and not any(_has_output_gate(block) for block in blocks):
            raise UserError("model.common_mode.before_gate=true has no effect: no penalized block has an output gate")
        for block in blocks:
            if not isinstance(getattr(block, "ls1", None), nn.Module):
                raise UserError(f"model.common_mode: {type(block).__name__} is not a plain timm block")
            if config.before_gate and _has_output_gate(block):
                block.attn.core.register_forward_hook(self._ungated(block))
            else:
                block.ls1.register_forward_hook(self._note)

    def _note(self, module: nn.Module, _args: Any, update: Tensor) -> None:
        if module.training:
            self._updates.append(update)

    def _ungated(self, block: Any) -> Callable[..., None]:
        """Return a hook that applies W_O and LayerScale to the heads' output (B, H, N, d) before the gate."""

        def hook(module: nn.Module, _args: Any, out: Tensor) -> None:
            if module.training and module is block.attn.core:  # a copy of the model keeps the hook of the original
                self._updates.append(block.ls1(block.attn.proj(block.attn.norm(out.transpose(1, 2).flatten(2)))))

        return hook

    def take(self) -> Tensor:
        """Return the mean share over the penalized blocks of the last pass, a scalar, and start a new collection.

        The backward pass of gradient checkpointing runs the blocks again; what it collected comes first and is dropped.
        """
        updates, self._updates[:] = self._updates[-self._blocks :], []
        if not self._checked_size:
            self._checked_size = True
            smallest = min(float(energy(update.detach())) for update in updates)
            if smallest < 1e3 * FLOOR:
                rank_zero_warn(
                    f"model.common_mode: an attention update has a mean square of {smallest:.0e}, close to the "
                    f"constant {FLOOR:.0e} in the penalty, which therefore underestimates the share; initialize "
                    "LayerScale with 1 (model.backbone.init_values=1)"
                )
        shares = [common_mode(update.to(torch.promote_types(update.dtype, torch.float32))) for update in updates]
        return torch.stack(shares).mean()


def _has_output_gate(block: Any) -> bool:
    """Whether a block's attention has a gate between the heads and W_O (G1)."""
    attn = getattr(block, "attn", None)
    return isinstance(attn, Attention) and attn.gate is not None and attn.config.gate_position == "output"
