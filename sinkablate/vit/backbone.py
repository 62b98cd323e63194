"""Building a vision transformer from a `BackboneConfig`: timm's model, registers, and a mechanism."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.layers import Attention as TimmAttention
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import PathwayBlock
from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width
from sinkablate.config.checks import block_indices
from sinkablate.vit.additions import Additions, names_of_additions, without_additions
from sinkablate.vit.hub_folder import resolved
from sinkablate.vit.init import draw_parameters
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.matched_control import gate_parameters, widen_mlp
from sinkablate.vit.positions import PositionRecord, Resampling, change_input_size, grid_of_weights
from sinkablate.vit.registers import register_arguments, transfer
from sinkablate.vit.same_variant import load_same_variant
from sinkablate.vit.timm_models import create_timm_model
from sinkablate.vit.weights import read_weights, require_finite_weights, weights_classes


def build_backbone(
    config: BackboneConfig, *, num_classes: int = 10, in_chans: int = 1, img_size: ImageSize = 28, seed: int = 0
) -> nn.Module:
    """Build timm's model, add registers and the mechanism, and draw or load its weights.

    Args:
        config: The variant.
        num_classes: Number of classes of the head; 0 for no head.
        in_chans: Number of input channels.
        img_size: Size of the input.
        seed: Seed of every parameter that is not loaded.

    Raises:
        ConfigError: The model is unknown or not supported, or its weights are unavailable or do not fit.
    """
    config = resolved(config)
    model = _build(config, {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}, seed)
    if config.grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise ConfigError(f"grad_checkpointing=true: {config.name} does not support it") from None
    return model


def _build(config: BackboneConfig, shape: dict[str, Any], seed: int) -> Any:
    """Build the model of `build_backbone` without gradient checkpointing."""
    weights, from_run = read_weights(config.checkpoint) if config.checkpoint else (None, False)
    if config.checkpoint and weights:
        require_finite_weights(config.checkpoint, weights)
    if weights and not from_run:
        _require_plain(config)
    source: Any = create_timm_model(config, shape, seed, weights=None if from_run else weights)
    record = PositionRecord(method=config.pos_embed_interpolation)
    if config.pretrained or (weights and not from_run):
        source, resampling = _with_positions(source, config, shape, seed, weights)
        record = replace(record, resampling=resampling)
    model = _changed(source, config, shape, seed, weights, from_run)
    if weights and from_run:
        record = replace(record, resampling=load_same_variant(model, weights, config))
    model.position_record = record
    return model


def _with_positions(
    source: Any, config: BackboneConfig, shape: dict[str, Any], seed: int, weights: dict[str, Tensor] | None
) -> tuple[Any, Resampling | None]:
    """Return timm's model with the chosen interpolation of its position embedding, and what was done to it.

    timm resamples while it loads; for another method, the model is built for the grid of its weights and then resized.
    """
    method, old = config.pos_embed_interpolation, grid_of_weights(source, weights)
    if old is None and method != "timm":
        raise ConfigError(
            f"pos_embed_interpolation={method}: {config.name} has no learned position embedding; use timm"
        )
    if old is None or old == source.patch_embed.grid_size:
        return source, None
    if method == "timm":
        return source, Resampling(method=method, old=old, new=source.patch_embed.grid_size)
    patch = patch_size_of(source)
    native = create_timm_model(config, shape | {"img_size": (old[0] * patch, old[1] * patch)}, seed, weights)
    return native, change_input_size(native, height_and_width(shape["img_size"]), method)


def _changed(
    source: Any,
    config: BackboneConfig,
    shape: dict[str, Any],
    seed: int,
    weights: dict[str, Tensor] | None,
    from_run: bool,
) -> Any:
    """Add registers and the mechanism to timm's model, and draw or load its other weights."""
    if not is_plain(source):
        _require_unchanged(source, config)
        return source
    loaded = _loaded_names(source, config, weights) if config.pretrained or (weights and not from_run) else set()
    model = source
    if (arguments := register_arguments(source, config)) is not None:
        model = create_timm_model(config, shape, seed, **arguments)
        if loaded:
            transfer(source, model, config, seed)
    _change_blocks(model, config)
    # Whether CLS had a position embedding that is now part of its token; fixed positions are zero there.
    folded = model.no_embed_class and not source.no_embed_class and model.has_class_token and not config.fixed_sincos
    draw_parameters(model, config, seed, keep=loaded, folded=folded)
    if config.fixed_sincos:
        _fix_sincos_positions(model)
    if loaded:
        new = frozenset(name for name, _ in model.named_parameters() if name not in loaded)
        unchanged = partial(build_backbone, without_additions(config), **shape, seed=seed)
        model.additions = Additions(names_of_additions(config, source), new, unchanged)
    return model


def _require_plain(config: BackboneConfig) -> None:
    """Refuse to start a variant from timm's weights that do not fit it; weights of the same variant do."""
    if config.match_parameters != "none":
        raise ConfigError(
            "match_parameters widens the MLPs, so the model cannot start from the weights of timm's model"
        )
    if config.fixed_sincos:
        raise ConfigError("fixed_sincos would overwrite the position embedding of pretrained weights")


def is_plain(model: nn.Module) -> bool:
    """Whether a model is timm's `VisionTransformer` with plain pre-norm blocks, which can be given mechanisms."""
    blocks: Any = model.blocks if type(model) is VisionTransformer else [None]
    return all(type(block) is Block and type(block.attn) is TimmAttention for block in blocks)


def _require_unchanged(model: nn.Module, config: BackboneConfig) -> None:
    """Refuse changes to a family that can be measured but not changed."""
    requested = {
        "pathway": config.pathway.kind != "none",
        "attention": not config.attention.is_identity,
        "match_parameters": config.match_parameters != "none",
        "registers": config.registers is not None,
        "fixed_sincos": config.fixed_sincos,
    }
    for name, is_requested in requested.items():
        if is_requested:
            raise ConfigError(
                f"{name} cannot change {config.name} ({type(model).__name__}): only timm's plain ViTs can be changed "
                "(vit_*, deit3_*, *_dinov2, CLIP, SigLIP)"
            )


def _loaded_names(source: VisionTransformer, config: BackboneConfig, weights: dict[str, Tensor] | None) -> set[str]:
    """Return the parameters that came with the weights, without the head if its number of classes differs."""
    names = {name for name, _ in source.named_parameters()}
    if source.num_classes != weights_classes(config, weights):
        names -= {"head.weight", "head.bias"}
    return names


def changed_blocks(config: BackboneConfig, depth: int) -> list[int]:
    """Return the indices of the blocks that `config.layers` names, in ascending order, from 0."""
    if config.layers == "all":
        return list(range(depth))
    return block_indices(config.layers, depth, "layers")


def _change_blocks(model: VisionTransformer, config: BackboneConfig) -> None:
    """Replace the attention, widen the MLP or add a pathway in the selected blocks.

    The global random state does not change. `model.match_difference` is set to the number of parameters that a widened
    model has in excess of the gated model it is matched to.
    """
    model.match_difference = 0
    for index in changed_blocks(config, len(model.blocks)):
        block = model.blocks[index]
        with torch.random.fork_rng(devices=[]):  # new layers draw weights that `draw_parameters` replaces
            if config.match_parameters != "none":
                attn = block.attn
                extra = gate_parameters(config.match_parameters, attn.qkv.in_features, attn.num_heads, attn.attn_dim)
                model.match_difference += widen_mlp(block.mlp, extra)
            if not config.attention.is_identity:
                block.attn = Attention.from_timm(block.attn, config.attention)
            if config.pathway.kind == "global":
                model.blocks[index] = PathwayBlock.from_timm(block, config.pathway)


def _fix_sincos_positions(model: VisionTransformer) -> None:
    """Set fixed two-dimensional sine-cosine patch positions (arXiv 2205.01580); the row of CLS, if any, is zero."""
    if model.pos_embed is None or model.embed_dim % 4:
        raise ConfigError("fixed_sincos=true needs a position embedding and a width that is a multiple of 4")
    patches = build_sincos2d_pos_embed(model.patch_embed.grid_size, model.embed_dim)
    prefix = model.pos_embed.shape[1] - patches.shape[0]
    with torch.no_grad():
        model.pos_embed.copy_(nn.functional.pad(patches, (0, 0, prefix, 0))[None])
    model.pos_embed.requires_grad_(False)
