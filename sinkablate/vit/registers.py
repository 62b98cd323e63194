"""Moving the weights of a model without registers into a model with registers."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sinkablate.config import BackboneConfig, ConfigError
from sinkablate.vit.init import generator


def register_arguments(source: VisionTransformer, config: BackboneConfig) -> dict[str, Any] | None:
    """Return timm's arguments for the registers of `config`, or None if `source` already has them.

    Registers without a position embedding need timm's `no_embed_class`, which also removes the position embedding of
    CLS. It is redundant, because CLS enters the blocks as token plus position, so `transfer` adds it to the token and
    the function of the model stays the same.
    """
    n = config.registers
    with_positions = not source.no_embed_class
    if n is None or (n == source.num_reg_tokens and (n == 0 or config.register_pos_embed == with_positions)):
        return None
    return {"reg_tokens": n, "no_embed_class": not config.register_pos_embed if n else source.no_embed_class}


def transfer(source: VisionTransformer, target: VisionTransformer, config: BackboneConfig, seed: int) -> None:
    """Copy the weights of a model without registers to one with registers.

    Args:
        source: The model with the weights.
        target: The model with registers, changed in place.
        config: For the error message.
        seed: Seed of the position embedding of registers.

    Raises:
        ConfigError: The source already has registers.
    """
    if source.num_reg_tokens:
        raise ConfigError(
            f"registers={config.registers}: the weights of {config.name} come with {source.num_reg_tokens} "
            "registers, whose number cannot be changed"
        )
    state = source.state_dict()
    _move_positions(state, source, target, seed)
    target.load_state_dict(state, strict=False)


def _move_positions(state: dict[str, Tensor], source: VisionTransformer, target: VisionTransformer, seed: int) -> None:
    """Rewrite the position embedding of a source without registers, and its CLS token, for the target's layout."""
    if source.pos_embed is None:
        return
    cls = 0 if source.no_embed_class else int(source.has_class_token)
    position, patches = state["pos_embed"][:, :cls], state["pos_embed"][:, cls:]
    if target.no_embed_class:
        if cls:
            state["cls_token"] = state["cls_token"] + position
        state["pos_embed"] = patches
        return
    if target.has_class_token and not cls:
        position = torch.zeros_like(state["cls_token"])
    registers = torch.empty(1, target.num_reg_tokens, patches.shape[-1])
    nn.init.trunc_normal_(registers, std=0.02, generator=generator(seed, "pos_embed.registers"))
    state["pos_embed"] = torch.cat((position, registers, patches), dim=1)
