"""Paired initialization: every parameter is drawn from its own generator, seeded by (seed, parameter name).

Two variants with the same seed therefore share every tensor they have in common. The distributions are those of timm's
`vit` scheme (`init_weights_vit_timm`), one rule per kind of parameter.
"""

import hashlib
import math
from collections.abc import Callable, Container
from functools import partial

import torch
from timm.layers import AttentionPoolLatent, LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn.init import kaiming_uniform_, normal_, trunc_normal_, uniform_

from sinkablate.attention.core import AttentionCore
from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import GlobalPathway
from sinkablate.config import BackboneConfig, ConfigError

MECHANISMS = (Attention, AttentionCore, GlobalPathway)
"""Modules whose parameters are initialized by `reset_mechanisms`."""


def generator(seed: int, name: str) -> Generator:
    """Return a CPU generator that depends on (seed, name) only."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@torch.no_grad()
def draw_parameters(
    model: VisionTransformer,
    config: BackboneConfig,
    seed: int,
    keep: Container[str] = frozenset(),
    folded: bool = False,
) -> None:
    """Draw the parameters of a timm ViT with a mechanism, each from the generator of (seed, its name).

    Args:
        model: The model, changed in place.
        config: Its configuration.
        seed: The seed.
        keep: Names of parameters that came from a checkpoint and keep their values.
        folded: Whether the position of CLS was folded into the CLS token, which is then the sum of both draws.

    Raises:
        ConfigError: There is no rule for a parameter.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, AttentionCore):
            continue
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            if name not in keep:
                _draw(module, leaf, parameter, config, seed, name)
    if folded and "cls_token" not in keep:
        model.cls_token += _position_rows(model.cls_token, "cls", seed)
    reset_mechanisms(model, seed)


def reset_mechanisms(model: nn.Module, seed: int, normal: Callable[..., Tensor] = trunc_normal_) -> None:
    """Initialize what mechanisms add to a model: sinks, score parameters and gates.

    Gates that start as the identity are folded into the weights next to them, which must have their values already.

    Args:
        model: The model, changed in place.
        seed: The seed.
        normal: Initializer of weights, called with `std` and `generator`.
    """
    for prefix, module in model.named_modules():
        if isinstance(module, (Attention, GlobalPathway)):
            module.reset_parameters(partial(_generator_below, seed, prefix), normal)
        if isinstance(module, Attention):
            module.fold_gate()


def _generator_below(seed: int, prefix: str, name: str) -> Generator:
    """Return the generator of a parameter whose name is relative to the module `prefix`."""
    return generator(seed, f"{prefix}.{name}")


def _draw(module: nn.Module, leaf: str, p: Tensor, config: BackboneConfig, seed: int, name: str) -> None:
    """Draw one parameter in place, by the kind of its module."""
    g = generator(seed, name)
    match module, leaf:
        case VisionTransformer(), "pos_embed":
            _draw_pos_embed(module, p, seed)
        case VisionTransformer(), "cls_token":
            normal_(p, std=1e-6, generator=g)
        case VisionTransformer(), "reg_token":
            trunc_normal_(p, std=config.register_init_std, generator=g)
        case AttentionPoolLatent(), "latent":
            std = p.shape[-1] ** -0.5
            trunc_normal_(p, std=std, a=-2 * std, b=2 * std, generator=g)
        case LayerScale(), "gamma":
            p.fill_(module.init_values)
        case nn.Linear(), "weight":
            trunc_normal_(p, std=0.02, generator=g)
        case nn.Conv2d(), "weight":
            kaiming_uniform_(p, a=math.sqrt(5), generator=g)
        case nn.Conv2d(), "bias":
            bound = math.prod((module.in_channels, *module.kernel_size)) ** -0.5
            uniform_(p, -bound, bound, generator=g)
        case nn.Linear(), "bias":
            p.zero_()
        case _, ("weight" | "bias") if "Norm" in type(module).__name__:
            p.fill_(1.0 if leaf == "weight" else 0.0)
        case _:
            raise ConfigError(f"name={config.name}: no initialization rule for {name} of {type(module).__name__}")


def _draw_pos_embed(model: VisionTransformer, p: Tensor, seed: int) -> None:
    """Draw CLS, register and patch rows, each from its own generator, so that they match across register counts."""
    prefix = p.shape[1] - model.patch_embed.num_patches
    cls = int(model.has_class_token) if prefix else 0
    rows = {"cls": slice(0, cls), "registers": slice(cls, prefix), "patches": slice(prefix, None)}
    for part, span in rows.items():
        p[:, span] = _position_rows(p[:, span], part, seed)


def _position_rows(like: Tensor, part: str, seed: int) -> Tensor:
    """Draw the position embedding of one kind of token, with the shape of `like`."""
    return trunc_normal_(torch.empty_like(like), std=0.02, generator=generator(seed, f"pos_embed.{part}"))
