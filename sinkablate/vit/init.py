"""Paired draws: every parameter comes from its own generator, seeded by (seed, parameter name).

Two variants of one seed therefore share every tensor they have in common, whatever else they have. The
distributions are timm's `vit` scheme (`init_weights_vit_timm`), written once per kind of parameter.
"""

import hashlib
import math
from collections.abc import Container

import torch
from timm.layers import AttentionPoolLatent, LayerScale
from timm.models.vision_transformer import VisionTransformer
from torch import Generator, Tensor, nn
from torch.nn.init import kaiming_uniform_, normal_, trunc_normal_, uniform_

from sinkablate.attention.module import Attention, AttentionCore
from sinkablate.attention.pathway import GlobalPathway
from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError


def generator(seed: int, name: str) -> Generator:
    """A CPU generator that is a function of (seed, name) and of nothing else."""
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
    """Draw every parameter of a converted timm ViT, except those named in `keep` (they came from a checkpoint).

    `folded` says that the CLS position was folded into the CLS token, which is then the sum of both draws.

    Raises:
        UserError: A parameter of a kind that has no rule here.
    """
    for prefix, module in model.named_modules():
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{prefix}.{leaf}" if prefix else leaf
            if name not in keep:
                _draw(module, leaf, parameter, config, seed, name)
    if folded and "cls_token" not in keep:
        model.cls_token += _position_rows(model.cls_token, "cls", seed)
    for prefix, module in model.named_modules():
        if isinstance(module, Attention) and module.gate is not None and f"{prefix}.gate.weight" not in keep:
            normal_(
                module.gate.weight,
                std=config.attention.gate_init_std,
                generator=generator(seed, f"{prefix}.gate.weight"),
            )
            module.gate.bias.fill_(config.attention.gate_init_bias)
        if isinstance(module, GlobalPathway) and f"{prefix}.gate.bias" not in keep:
            module.gate.bias.fill_(config.pathway.gate_init_bias)


def _draw(module: nn.Module, leaf: str, p: Tensor, config: BackboneConfig, seed: int, name: str) -> None:
    """Draw one parameter in place."""
    g = generator(seed, name)
    match module, leaf:
        case VisionTransformer(), "pos_embed":
            _draw_pos_embed(module, p, seed)
        case VisionTransformer(), "cls_token":
            normal_(p, std=1e-6, generator=g)
        case VisionTransformer(), "reg_token":
            trunc_normal_(p, std=config.register_init_std, generator=g)
        case AttentionCore(), "sink_key" | "sink_value":
            trunc_normal_(p, std=0.02, generator=g)
        case AttentionCore(), "sink_logit" | "score_bias":
            p.zero_()
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
            raise UserError(
                f"model.backbone.name={config.name}: no initialization rule for {name} of {type(module).__name__}"
            )


def _draw_pos_embed(model: VisionTransformer, p: Tensor, seed: int) -> None:
    """Rows of CLS, registers and patches from a generator each, so that they match across register counts."""
    prefix = p.shape[1] - model.patch_embed.num_patches
    cls = int(model.has_class_token) if prefix else 0
    rows = {"cls": slice(0, cls), "registers": slice(cls, prefix), "patches": slice(prefix, None)}
    for part, where in rows.items():
        p[:, where] = _position_rows(p[:, where], part, seed)


def _position_rows(like: Tensor, part: str, seed: int) -> Tensor:
    """Position embedding of one kind of token, of the shape of `like`."""
    return trunc_normal_(torch.empty_like(like), std=0.02, generator=generator(seed, f"pos_embed.{part}"))
