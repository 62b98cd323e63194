"""The timm format: a folder that timm alone loads, for variants that timm can express exactly.

Softmax attention and registers are timm's `VisionTransformer`. timm's gate on the output of attention, one value per
channel, exists in its `NaFlexVit` (`attn_gated`): a gate per head becomes one that is equal for the channels of a head,
and a block without a gate one that is open.
"""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from timm.models.naflexvit import checkpoint_filter_fn
from torch import Tensor, nn

from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError, shortened
from sinkablate.export.trained import TrainedModel
from sinkablate.vit.timm_models import MINI_SHAPE

OPEN_BIAS = 64.0
"""Bias of a gate that is open: its sigmoid is one in every floating-point format."""
GATED = {"use_naflex": True, "attn_gated": True, "attn_type": "rope", "qkv_bias": True}
"""timm's arguments of a gated model: the attention `rope` is the plain one unless a rotary embedding is given. Its gate
has a bias only if the maps to queries, keys and values have one, which may be zero."""
RENAMED = {".ls1.gamma": ".gamma_1", ".ls2.gamma": ".gamma_2"}
"""Names of LayerScale in timm's plain and in its gated blocks."""


def as_timm(trained: TrainedModel) -> nn.Module:
    """Return timm's own model with the function of a run's model, in eval mode.

    Raises:
        UserError: timm lacks a part of the variant; the message names it.
    """
    source: Any = trained.model
    config = trained.description.backbone
    if missing := _missing_part(config, source):
        raise UserError(f"format=timm: timm has no {missing}; use --format hub, which sinkablate.create_model reads")
    gated = config.attention.gate != "none"
    architecture, arguments = _architecture(source, config)
    try:
        model = timm.create_model(architecture, **arguments, pretrained_cfg=_pretrained_cfg(trained))
        model.load_state_dict(_gated_weights(source, model) if gated else source.state_dict())
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"format=timm: timm cannot build this model ({shortened(str(error))}); use --format hub"
        ) from None
    return model.eval()


def write_timm(trained: TrainedModel, folder: Path) -> None:
    """Write a run's model with timm's own function.

    Raises:
        UserError: timm lacks a part of the variant.
    """
    model_config = {"label_names": list(trained.classes)} if trained.classes else {}
    save_for_hf(as_timm(trained), str(folder), model_config=model_config, safe_serialization=True)


def read_timm(folder: Path) -> nn.Module:
    """Load a folder with timm alone."""
    model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return model.eval()


def _missing_part(config: BackboneConfig, model: Any) -> str:
    """Name the part of a variant that timm lacks; empty if it has all of them."""
    attention = config.attention
    matched = config.match_parameters != "none"
    varied = matched and len({block.mlp.fc1.out_features for block in model.blocks}) > 1
    missing = {
        f"attention with score={attention.score}": attention.score != "softmax",
        f"sink={attention.sink} in attention": attention.sink != "none",
        "gate on the values (gate_position=value)": attention.gate != "none" and attention.gate_position == "value",
        "global pathway": config.pathway.kind != "none",
        f"model whose MLPs differ in width (match_parameters={config.match_parameters} in some blocks)": varied,
    }
    return next((part for part, is_missing in missing.items() if is_missing), "")


def _architecture(model: Any, config: BackboneConfig) -> tuple[str, dict[str, Any]]:
    """Return the name and the arguments with which timm builds a model of the same shape."""
    name = str(model.pretrained_cfg["architecture"])
    arguments = dict(model._model_args) | {"num_classes": model.num_classes}
    for rate in [key for key in arguments if key.endswith("_rate")]:
        del arguments[rate]
    if name == "vit_mini":
        name, arguments = "vit_tiny_patch16_224", MINI_SHAPE | arguments
    if config.match_parameters != "none":
        width = model.blocks[0].mlp.fc1.out_features
        arguments["mlp_ratio"] = (width + 0.5) / model.embed_dim  # timm rounds the product down
    if config.attention.gate != "none":
        arguments.pop("no_embed_class", None)
        arguments |= GATED
    return name, arguments


def _pretrained_cfg(trained: TrainedModel) -> dict[str, Any]:
    """Return timm's description of the weights: where the head is, and how images are prepared."""
    source, image = dict(trained.model.pretrained_cfg), trained.description.image  # type: ignore[arg-type]
    return {
        "num_classes": trained.description.num_classes,
        "input_size": trained.shape,
        "fixed_input_size": True,
        "mean": image.mean,
        "std": image.std,
        "interpolation": "bicubic" if image.interpolation == "random" else image.interpolation,
        "crop_pct": image.crop_pct,
        "crop_mode": "center",
        "first_conv": source.get("first_conv"),
        "classifier": source.get("classifier"),
    }


def _gated_weights(source: Any, target: Any) -> dict[str, Tensor]:
    """Return the weights of a model in the layout of timm's gated model.

    Args:
        source: The model, with gates in some or all blocks.
        target: timm's model.
    """
    state = {name: tensor.clone() for name, tensor in source.state_dict().items()}
    if source.pos_embed is not None:
        cls, prefix, positions = int(source.has_class_token), source.num_prefix_tokens, state.pop("pos_embed")
        if not source.no_embed_class:  # tokens enter the blocks as token plus position
            for name, part in {"cls_token": slice(0, cls), "reg_token": slice(cls, prefix)}.items():
                if name in state:
                    state[name] += positions[:, part]
            positions = positions[:, prefix:]
        state["embeds.pos_embed"] = positions.unflatten(1, source.patch_embed.grid_size)
    state = {_renamed(name): tensor for name, tensor in checkpoint_filter_fn(state, target).items()}
    own = target.state_dict()
    for index, block in enumerate(source.blocks):
        gate = f"blocks.{index}.attn.gate"
        if f"{gate}.weight" not in state:
            state |= {f"{gate}.weight": torch.zeros_like(own[f"{gate}.weight"])}
            state |= {f"{gate}.bias": torch.full_like(own[f"{gate}.bias"], OPEN_BIAS)}
        elif len(state[f"{gate}.bias"]) == block.attn.num_heads:
            for name in (f"{gate}.weight", f"{gate}.bias"):
                state[name] = state[name].repeat_interleave(block.attn.head_dim, dim=0)
        bias = f"blocks.{index}.attn.qkv.bias"
        state.setdefault(bias, torch.zeros_like(own[bias]))
    return state


def _renamed(name: str) -> str:
    for plain, gated in RENAMED.items():
        name = name.replace(plain, gated)
    return name
