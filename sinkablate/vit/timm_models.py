"""Creating timm's models, including `vit_mini`, with one-line errors."""

import re
from typing import Any

import timm
import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width, size_text, size_value
from sinkablate.errors import first_line, shortened
from sinkablate.files.suggestions import did_you_mean
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.resizing import nearest_sizes
from sinkablate.vit.weights import weights_classes

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
    return timm.models.build_model_with_cfg(VisionTransformer, "vit_mini", pretrained, **MINI_SHAPE | kwargs)


def short_name(name: str) -> str:
    """Return a model's name in run directories: vit_small_patch16_224 becomes vit_s16, other names stay."""
    sizes = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}
    if match := re.fullmatch(r"vit_(tiny|small|base|large|huge)_patch(\d+)_\d+", name):
        return f"vit_{sizes[match[1]]}{match[2]}"
    return name.replace("/", "_").replace(":", "_")


def create_timm_model(
    config: BackboneConfig, shape: dict[str, Any], seed: int, weights: dict[str, Tensor] | None = None, **overrides: Any
) -> nn.Module:
    """Create timm's model under its own seed, without changing the global random state.

    Args:
        config: Name and shape of the model.
        shape: num_classes, in_chans and img_size.
        seed: Seed of the weights that are not loaded.
        weights: State dict of a local file, in timm's layout.
        **overrides: Further arguments of the model. With them, no pretrained weights are loaded.

    Raises:
        ConfigError: timm has no such model or weights, or the weights do not fit.
    """
    base = config.name.split(".")[0]
    if not timm.is_model(base):
        hint = did_you_mean(base, timm.list_models(), most=3, beginnings=True)
        raise ConfigError(f"name={config.name}: timm has no such model{hint}")
    arguments: dict[str, Any] = {k: v for k in SHAPE if (v := getattr(config, k)) is not None}
    arguments |= {k: v for k in RATES if (v := getattr(config, k))}
    if weights is not None:
        arguments["pretrained_cfg_overlay"] = {
            "state_dict": weights,
            "custom_load": False,
            "num_classes": weights_classes(config, weights),
        }
    pretrained = weights is not None or (config.pretrained and not overrides)
    # The weights' own number of classes makes the load strict; with another one, timm ignores missing keys.
    created = shape | ({"num_classes": weights_classes(config, weights)} if pretrained else {})
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model: Any = timm.create_model(config.name, pretrained=pretrained, **created, **arguments, **overrides)
            if created != shape:
                model.reset_classifier(shape["num_classes"])
    except Exception as error:
        raise _refusal(config, error) from error
    _require_whole_patches(model, config, shape["img_size"])
    return model


def _refusal(config: BackboneConfig, error: Exception) -> ConfigError:
    """Describe in one line what timm raised."""
    key = f"name={config.name}"
    reason = first_line(error)
    family, unsized, _ = reason.partition(".__init__() got an unexpected keyword argument 'img_size'")
    if unsized:
        return ConfigError(f"{key}: {family} is not a timm vision transformer")
    if config.checkpoint:
        mismatch = shortened(str(error), 300)
        return ConfigError(f"checkpoint={config.checkpoint} does not fit {key}: {mismatch}")
    if config.pretrained:
        return ConfigError(
            f"{key}: no pretrained weights ({reason}); give a local file with checkpoint=FILE, or pretrained=false for "
            "random weights",
            remedies=("checkpoint=FILE", "pretrained=false"),
        )
    return ConfigError(f"{key}: {reason}")


def _require_whole_patches(model: nn.Module, config: BackboneConfig, size: ImageSize) -> None:
    """Refuse images that do not divide into patches."""
    patch = patch_size_of(model)
    if all(side % patch == 0 for side in height_and_width(size)):
        return
    if config.patch_size is not None:
        raise ConfigError(
            f"patch_size={patch}: images of {size_text(size)} pixels do not divide into whole patches for "
            f"{config.name}; use another patch size, or images of {nearest_sizes(size, patch)} pixels"
        )
    raise ConfigError(
        f"img_size={size_value(size)}: does not divide into the patches of {config.name}, which have {patch} pixels; "
        f"use a multiple, such as {nearest_sizes(size, patch)}"
    )
