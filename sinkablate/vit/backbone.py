"""Building a vision transformer from a `BackboneConfig`: timm's model, registers, and a mechanism."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sinkablate.attention.module import Attention
from sinkablate.attention.pathway import PathwayBlock
from sinkablate.config import BackboneConfig, ConfigError, ImageSize, height_and_width
from sinkablate.config.checks import block_indices
from sinkablate.vit.additions import Additions, names_of_additions, without_additions
from sinkablate.vit.checkpoint_files import Checkpoint, read_checkpoint, require_finite_weights
from sinkablate.vit.hub_folder import resolved
from sinkablate.vit.init import draw_parameters
from sinkablate.vit.inputs import patch_size_of
from sinkablate.vit.matched_control import gate_parameters, widen_mlp
from sinkablate.vit.positions import PositionRecord, Resampling, change_input_size, grid_of_weights
from sinkablate.vit.pretrained import Pretrained, create_pretrained, origin_of
from sinkablate.vit.registers import register_arguments, transfer
from sinkablate.vit.same_variant import load_same_variant
from sinkablate.vit.timm_models import create_timm_model, is_plain, require_input_size


def build_backbone(
    config: BackboneConfig, *, num_classes: int | None = 10, in_chans: int = 1, img_size: ImageSize = 28, seed: int = 0
) -> nn.Module:
    """Build timm's model, add registers and the mechanism, and draw or load its weights.

    If weights are loaded, `weights_origin` of the model records what was decided about them.

    Args:
        config: The variant.
        num_classes: Number of classes of the head, 0 for no head; None for the number that the weights have.
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
    file = read_checkpoint(config.checkpoint, config.checkpoint_key) if config.checkpoint else None
    if file is not None:
        require_finite_weights(file)
    source, loaded, origin = _source(config, shape, seed, file)
    shape = shape | {"num_classes": source.num_classes}
    record = PositionRecord(method=config.pos_embed_interpolation)
    of_variant = file is not None and file.of_variant
    starts_plain = file is not None and file.plain and is_plain(source) and bool(names_of_additions(config, source))
    if file is not None and starts_plain:
        _require_plain(config)
        loaded, resampling = load_same_variant(source, file, config)
        record = replace(record, resampling=resampling)
    elif origin is not None and not of_variant:
        source, resampling = _with_positions(source, config, shape, seed, file)
        record = replace(record, resampling=resampling)
    model = _changed(source, config, shape, seed, loaded)
    if file is not None and of_variant and not starts_plain:
        record = replace(record, resampling=load_same_variant(model, file, config).resampling)
    model.position_record, model.weights_origin = record, origin
    return model


def _with_positions(
    source: Any, config: BackboneConfig, shape: dict[str, Any], seed: int, file: Checkpoint | None
) -> tuple[Any, Resampling | None]:
    """Return timm's model with the chosen interpolation of its position embedding, and what was done to it.

    timm resamples while it loads; for another method, the model is built for the grid of its weights and then resized.
    """
    method, old = config.pos_embed_interpolation, grid_of_weights(source, None if file is None else file.weights)
    if old is None and method != "timm":
        raise ConfigError(
            f"pos_embed_interpolation={method}: {config.name} has no learned position embedding; use timm"
        )
    if old is None or old == source.patch_embed.grid_size:
        return source, None
    if method == "timm":
        return source, Resampling(method=method, old=old, new=source.patch_embed.grid_size)
    patch = patch_size_of(source)
    native = _source(config, shape | {"img_size": (old[0] * patch, old[1] * patch)}, seed, file).model
    return native, change_input_size(native, height_and_width(shape["img_size"]), method)


def _changed(source: Any, config: BackboneConfig, shape: dict[str, Any], seed: int, loaded: set[str]) -> Any:
    """Add registers and the mechanism to timm's model, and draw every parameter that is not among the loaded ones."""
    if not is_plain(source):
        _require_unchanged(source, config)
        return source
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


def _source(config: BackboneConfig, shape: dict[str, Any], seed: int, file: Checkpoint | None) -> Pretrained:
    """Return timm's model, with timm's weights unless these are random or belong to a variant."""
    if (file is None and config.pretrained) or (file is not None and not file.of_variant):
        _require_plain(config)
        source = create_pretrained(config, shape, seed, file)
    else:
        head = None if file is None else file.weights.get("head.weight")
        classes = shape["num_classes"] if shape["num_classes"] is not None else 0 if head is None else len(head)
        model = create_timm_model(config, shape | {"num_classes": classes}, seed)
        source = Pretrained(model, set(), None if file is None else origin_of(file))
    require_input_size(source.model, config, shape["img_size"])
    return source


def _require_plain(config: BackboneConfig) -> None:
    """Refuse variants whose parameters timm's weights do not fit; those of a run of the same variant do."""
    if config.match_parameters != "none":
        raise ConfigError(
            f"match_parameters={config.match_parameters} widens the MLPs, into which pretrained weights do not fit; "
            "leave it out, or start from random weights"
        )
    if config.fixed_sincos:
        raise ConfigError(
            "fixed_sincos=true would overwrite the position embedding of pretrained weights; leave it out, or start "
            "from random weights"
        )


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
