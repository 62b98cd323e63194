"""Creating timm's models, including `vit_mini`, with one-line errors."""

import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers import Attention as TimmAttention
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import nn

from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width, size_text
from sinkablate.errors import first_line, shortened
from sinkablate.vit.hub_errors import hub_problem
from sinkablate.vit.hub_folder import LOCAL
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.model_names import named_model
from sinkablate.vit.resizing import nearest_sizes, require_whole_patches

default_cfgs = generate_default_cfgs(
    {
        "vit_mini.untrained": {
            "url": "",
            "num_classes": 10,
            "input_size": (1, 28, 28),
            "fixed_input_size": True,
            "mean": (0.286,),
            "std": (0.353,),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
    }
)

SHAPE = (
    "embed_dim",
    "depth",
    "num_heads",
    "patch_size",
    "mlp_ratio",
    "qkv_bias",
    "init_values",
    "class_token",
    "global_pool",
)
"""Keys of `BackboneConfig` that are passed to timm unless they are null."""
RATES = ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate")
"""Keys that are passed to timm unless they are zero."""


MINI_SHAPE = {"img_size": 28, "patch_size": 7, "in_chans": 1, "embed_dim": 64, "depth": 4, "num_heads": 4}
"""Arguments of `vit_mini`."""


@register_model  # type: ignore[untyped-decorator]
def vit_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Create a ViT for 28-pixel gray images: width 64, depth 4, 4 heads, patch 7, no LayerScale; 0.2 M parameters."""
    return timm.models.build_model_with_cfg(
        VisionTransformer, "vit_mini", pretrained, pretrained_filter_fn=checkpoint_filter_fn, **MINI_SHAPE | kwargs
    )


def short_name(name: str) -> str:
    """Return a model's name in run directories: vit_small_patch16_224 is vit_s16, a folder is its last part."""
    sizes = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}
    if match := re.fullmatch(r"vit_(tiny|small|base|large|huge)_patch(\d+)_\d+", name):
        return f"vit_{sizes[match[1]]}{match[2]}"
    source, _, location = name.partition(":")
    return Path(location).name if source == LOCAL else name.replace("/", "_").replace(":", "_")


def model_arguments(config: BackboneConfig) -> dict[str, Any]:
    """Return timm's arguments for the keys of a configuration that are not left to timm."""
    arguments: dict[str, Any] = {k: v for k in SHAPE if (v := getattr(config, k)) is not None}
    return arguments | {k: v for k in RATES if (v := getattr(config, k))}


def create_timm_model(config: BackboneConfig, shape: dict[str, Any], seed: int, **overrides: Any) -> nn.Module:
    """Create timm's model with random weights under its own seed, without changing the global random state.

    Args:
        config: Name and shape of the model.
        shape: num_classes, in_chans and img_size.
        seed: Seed of the weights.
        **overrides: Further arguments of the model.

    Raises:
        ConfigError: timm has no such model.
    """
    named = named_model(config.name)
    arguments = {**named.arguments, **shape, **model_arguments(config), **overrides}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return timm.create_model(named.architecture, pretrained_cfg=named.cfg, **arguments)
    except Exception as error:
        raise refusal(config, error) from error


def is_plain(model: nn.Module) -> bool:
    """Whether a model is timm's `VisionTransformer` with plain pre-norm blocks, which can be given mechanisms."""
    blocks: Any = model.blocks if type(model) is VisionTransformer else [None]
    return all(type(block) is Block and type(block.attn) is TimmAttention for block in blocks)


def refusal(config: BackboneConfig, error: Exception) -> ConfigError:
    """Describe in one line what timm raised."""
    key = f"name={config.name}"
    reason = hub_problem(error) or first_line(error)
    family, unsized, _ = reason.partition(".__init__() got an unexpected keyword argument 'img_size'")
    if unsized:
        return ConfigError(f"{key}: {family} is not a timm vision transformer")
    if config.checkpoint:
        return ConfigError(f"checkpoint={config.checkpoint} does not fit {key}: {shortened(str(error), 300)}")
    if config.pretrained:
        return ConfigError(
            f"{key}: no pretrained weights ({reason}); give a local file with checkpoint=FILE, or pretrained=false for "
            "random weights",
            remedies=("checkpoint=FILE", "pretrained=false"),
        )
    return ConfigError(f"{key}: {reason}")


def require_input_size(model: nn.Module, config: BackboneConfig, size: ImageSize) -> None:
    """Refuse images that do not divide into the patches of a model."""
    patch = patch_size_of(model)
    if config.patch_size is not None and any(side % patch for side in height_and_width(size)):
        raise ConfigError(
            f"patch_size={patch}: images of {size_text(size)} pixels do not divide into whole patches for "
            f"{config.name}; use another patch size, or images of {nearest_sizes(size, patch)} pixels"
        )
    require_whole_patches(size, patch, "img_size")
