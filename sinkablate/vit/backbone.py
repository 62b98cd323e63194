"""From a `BackboneConfig` to a timm model with registers and a mechanism in it."""

import re
from typing import Any

import timm
import torch
from timm.layers import Attention as TimmAttention
from timm.layers import build_sincos2d_pos_embed, to_2tuple
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sinkablate.attention.module import Attention, gate_parameters, widen_mlp
from sinkablate.attention.pathway import PathwayBlock
from sinkablate.config import BackboneConfig
from sinkablate.errors import UserError, first_line
from sinkablate.files.suggestions import did_you_mean
from sinkablate.vit.init import draw_parameters, generator
from sinkablate.vit.weights import read_weights, require_finite_weights, weights_classes

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


@register_model  # type: ignore[untyped-decorator]
def vit_mini(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViT for 28-pixel gray images: width 64, depth 4, 4 heads, patch 7, no LayerScale; 0.2 M parameters."""
    shape = {"img_size": 28, "patch_size": 7, "in_chans": 1, "embed_dim": 64, "depth": 4, "num_heads": 4}
    return timm.models.build_model_with_cfg(VisionTransformer, "vit_mini", pretrained, **{**shape, **kwargs})


def build_backbone(config: BackboneConfig, *, num_classes: int, in_chans: int, img_size: int, seed: int) -> nn.Module:
    """Build the model: timm's, then registers, then the mechanism; weights drawn by name or loaded.

    Args:
        config: The variant.
        num_classes: Classes of the head; 0 leaves it out.
        in_chans: Input channels.
        img_size: Side of the square input in pixels.
        seed: Seed of every parameter that is not loaded.

    Raises:
        UserError: Unknown or unsupported model, or weights that cannot be had or do not fit.
    """
    model = _built(config, {"num_classes": num_classes, "in_chans": in_chans, "img_size": img_size}, seed)
    if config.grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)
        except (AttributeError, AssertionError):
            raise UserError(f"model.backbone.grad_checkpointing: {config.name} does not support it") from None
    return model


def _built(config: BackboneConfig, shape: dict[str, int], seed: int) -> Any:
    """The model of `build_backbone`."""
    weights, ours = read_weights(config.checkpoint) if config.checkpoint else (None, False)
    if config.checkpoint and weights:
        require_finite_weights(config.checkpoint, weights)
    source = _create(config, shape, seed, weights=None if ours else weights)
    if not is_plain(source):
        return _as_timm_has_it(source, config)
    loaded = _loaded_names(source, config, weights) if config.pretrained or (weights and not ours) else set()
    model = _with_registers(source, config, shape, seed, transfer=bool(loaded))
    _change_blocks(model, config)
    folded = (
        model.no_embed_class and not source.no_embed_class and model.has_class_token and not config.fixed_sincos
    )  # whose CLS row is zero
    draw_parameters(model, config, seed, keep=loaded, folded=folded)
    if config.fixed_sincos:
        _fix_sincos_positions(model)
    if weights and ours:
        _load(model, weights, config)
    return model


def is_plain(model: nn.Module) -> bool:
    """True for timm's `VisionTransformer` of plain pre-norm blocks: what registers and mechanisms can change."""
    blocks: Any = model.blocks if type(model) is VisionTransformer else [None]
    return all(type(block) is Block and type(block.attn) is TimmAttention for block in blocks)


def short_name(name: str) -> str:
    """Name of a model in run directories: vit_small_patch16_224 is vit_s16, others keep timm's name."""
    sizes = {"tiny": "ti", "small": "s", "base": "b", "large": "l", "huge": "h"}
    if match := re.fullmatch(r"vit_(tiny|small|base|large|huge)_patch(\d+)_\d+", name):
        return f"vit_{sizes[match[1]]}{match[2]}"
    return name.replace("/", "_").replace(":", "_")


def _create(
    config: BackboneConfig, shape: dict[str, int], seed: int, weights: dict[str, Tensor] | None = None, **overrides: Any
) -> nn.Module:
    """timm's model, built under its own seed so that the global random state stays as it was."""
    key = f"model.backbone.name={config.name}"
    base = config.name.split(".")[0]
    if not timm.is_model(base):
        raise UserError(f"{key}: timm has no such model{did_you_mean(base, timm.list_models(), most=3)}")
    shaped = (
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
    rates = ("drop_path_rate", "drop_rate", "proj_drop_rate", "attn_drop_rate")
    arguments = {name: getattr(config, name) for name in (*shaped, *rates)}
    arguments = {k: v for k, v in arguments.items() if v is not None and (v or k not in rates)}
    if weights is not None:
        arguments["pretrained_cfg_overlay"] = {
            "state_dict": weights,
            "custom_load": False,
            "num_classes": weights_classes(config, weights),
        }
    pretrained = weights is not None or (config.pretrained and not overrides)
    # with the weights' own head the load is strict: timm lets any key go astray when the classes differ
    built = shape | ({"num_classes": weights_classes(config, weights)} if pretrained else {})
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model: Any = timm.create_model(config.name, pretrained=pretrained, **built, **arguments, **overrides)
            if built != shape:
                model.reset_classifier(shape["num_classes"])
    except Exception as error:
        raise UserError(_why_not(config, key, error)) from error
    _require_whole_patches(model, key)
    return model


def _why_not(config: BackboneConfig, key: str, error: Exception) -> str:
    """One line for whatever timm raised."""
    reason = first_line(error)
    family, unsized, _ = reason.partition(".__init__() got an unexpected keyword argument 'img_size'")
    if unsized:
        return f"{key}: {family} is not a vision transformer of timm"
    if config.checkpoint:
        return f"model.backbone.checkpoint={config.checkpoint} does not fit {key}: {' '.join(str(error).split())[:300]}"
    if config.pretrained:
        return f"{key}: no pretrained weights ({reason}); give a local file with model.backbone.checkpoint=FILE"
    return f"{key}: {reason}"


def _require_whole_patches(model: nn.Module, key: str) -> None:
    embed = getattr(model, "patch_embed", None)
    sizes, patches = getattr(embed, "img_size", None), getattr(embed, "patch_size", None)
    for size, patch in zip(to_2tuple(sizes or 0), to_2tuple(patches or 1), strict=True):
        if size % patch:
            raise UserError(
                f"{key}: images of {size} pixels do not divide into patches of {patch} "
                "(model.backbone.img_size, model.backbone.patch_size)"
            )


def _as_timm_has_it(model: nn.Module, config: BackboneConfig) -> nn.Module:
    """A family that is measured but not changed."""
    asked = {
        "pathway": config.pathway.kind != "none",
        "attention": not config.attention.is_identity,
        "match_parameters": config.match_parameters != "none",
        "registers": config.registers is not None,
        "fixed_sincos": config.fixed_sincos,
    }
    for name, wanted in asked.items():
        if wanted:
            raise UserError(
                f"model.backbone.{name} cannot change {config.name} ({type(model).__name__}): only timm's "
                "plain ViTs can be changed (vit_*, deit3_*, *_dinov2, CLIP, SigLIP)"
            )
    return model


def _loaded_names(source: VisionTransformer, config: BackboneConfig, weights: dict[str, Tensor] | None) -> set[str]:
    """Parameters that came with the weights; the head did not if its number of classes differs."""
    names = {name for name, _ in source.named_parameters()}
    if source.num_classes != weights_classes(config, weights):
        names -= {"head.weight", "head.bias"}
    return names


def _with_registers(
    source: VisionTransformer, config: BackboneConfig, shape: dict[str, int], seed: int, transfer: bool
) -> VisionTransformer:
    """The model with `config.registers` register tokens; the same object where nothing changes.

    Registers without a position embedding need timm's `no_embed_class`, which also drops the one of CLS. That one
    is redundant (CLS enters as token plus position), so it is folded into the token: the function stays the same.
    """
    n = config.registers
    positioned = not source.no_embed_class
    if n is None or (n == source.num_reg_tokens and (n == 0 or config.register_pos_embed == positioned)):
        return source
    if transfer and source.num_reg_tokens:
        raise UserError(
            f"model.backbone.registers={n}: the weights of {config.name} come with "
            f"{source.num_reg_tokens} registers, which cannot be exchanged"
        )
    no_embed_class = not config.register_pos_embed if n else source.no_embed_class
    target = _create(config, shape, seed, reg_tokens=n, no_embed_class=no_embed_class)
    if transfer:
        state = source.state_dict()
        _move_positions(state, source, target, seed)
        target.load_state_dict(state, strict=False)
    return target


def _move_positions(state: dict[str, Tensor], source: VisionTransformer, target: VisionTransformer, seed: int) -> None:
    """Rewrite the position rows (and a folded CLS token) of a source without registers for the target's layout."""
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


def block_indices(config: BackboneConfig, depth: int) -> list[int]:
    """Blocks that `config.layers` names, rising, from 0."""
    if config.layers == "all":
        return list(range(depth))
    for layer in config.layers:
        if not -depth <= layer < depth:
            raise UserError(f"model.backbone.layers: {layer} is outside the model's {depth} blocks")
    return sorted({layer % depth for layer in config.layers})


def _change_blocks(model: VisionTransformer, config: BackboneConfig) -> None:
    """Replace the attention, widen the MLP or add a pathway in the chosen blocks.

    The global random state stays as it was.

    `model.match_difference` is the number of parameters a widened model has beyond the gated one it is matched to.
    """
    model.match_difference = 0
    for index in block_indices(config, len(model.blocks)):
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
    """Fixed two-dimensional sine-cosine patch positions (arXiv 2205.01580); CLS, where it has a row, gets zero."""
    if model.pos_embed is None or model.embed_dim % 4:
        raise UserError("model.backbone.fixed_sincos needs a position embedding and a width that is a multiple of 4")
    patches = build_sincos2d_pos_embed(model.patch_embed.grid_size, model.embed_dim)
    prefix = model.pos_embed.shape[1] - patches.shape[0]
    with torch.no_grad():
        model.pos_embed.copy_(nn.functional.pad(patches, (0, 0, prefix, 0))[None])
    model.pos_embed.requires_grad_(False)


def _load(model: VisionTransformer, weights: dict[str, Tensor], config: BackboneConfig) -> None:
    """Weights of one of our own runs: the same architecture, whatever the head."""
    wanted = model.state_dict()
    head = {k: v for k, v in wanted.items() if k.startswith("head.")}
    saved = {k: v.shape for k, v in weights.items() if k.startswith("head.")}
    if saved != {k: v.shape for k, v in head.items()}:
        weights = {k: v for k, v in weights.items() if k not in saved} | head
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"model.backbone.checkpoint={config.checkpoint} is of another model: {' '.join(str(error).split())[:300]}"
        ) from error
