"""Locations of blocks, attention and norms in the vision transformers of timm and of Hugging Face's transformers.

The families use different names for the same parts; this is the only module that knows them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.config.checks import block_indices
from sinkablate.errors import UserError, first_line

_SUPPORTED = "expected a vision transformer of timm or of Hugging Face's transformers"
_BLOCKS = ("blocks", "layers", "encoder.layer", "encoder.layers", "model.layer")
_ATTENTION = ("attn", "attention", "self_attn")
_PROJECTION = ("proj", "o_proj", "out_proj")
_QUERY = ("q_proj", "query")
_NORM1 = ("norm1", "layernorm_before", "layer_norm1")
_NORM2 = ("norm2", "layernorm_after", "layer_norm2")
_GAMMA = ("ls1.gamma", "gamma_1", "layer_scale1.lambda1")
_FINAL_NORM = ("norm", "layernorm", "post_layernorm", "fc_norm", "pooler.layernorm")
_NUM_HEADS = ("num_heads", "num_attention_heads")


@dataclass(frozen=True)
class BlockParts:
    """The parts of a pre-norm block: x + gamma * attn(norm1(x)), followed by the MLP after `norm2`."""

    block: nn.Module
    attn: nn.Module
    """The attention, whose output, or its first element, is the update before LayerScale (B, N, D)."""
    proj: nn.Linear
    """The output map W_O (D, H d)."""
    gamma: Tensor | None
    """LayerScale (D,), or None."""
    norm1: nn.Module
    norm2: nn.Module
    """The norm before the MLP, whose input is the residual stream after the attention update."""
    gate: nn.Module | None
    """The linear map to gate logits, or None."""
    num_heads: int
    pathway: nn.Module | None = None
    """The module that adds a second update (B, N, D) to attention's, or None."""


def backbone_of(task: nn.Module) -> nn.Module | None:
    """Return the model of a task that diagnostics measure, without compilation; None if there is none."""
    backbone = getattr(task, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else None


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """Return the transformer blocks, from first to last.

    Raises:
        UserError: The model has no list of blocks under any of the known names.
    """
    blocks = _first(model, _BLOCKS)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or len(blocks) == 0:
        raise UserError(
            f"{type(model).__name__} cannot be measured: it has no list of transformer blocks; {_SUPPORTED}"
        )
    return list(blocks)


def block_numbers(model: nn.Module, blocks: Sequence[int] | None) -> list[int]:
    """Return block numbers in ascending order; negative numbers count from the last block, None means all.

    Raises:
        UserError: The list is empty, or a block is outside the model.
    """
    depth = len(blocks_of(model))
    if blocks is None:
        return list(range(depth))
    if not blocks:
        raise UserError("blocks: name at least one, or leave the key out to measure all")
    return block_indices(blocks, depth, "blocks")


def block_parts(model: nn.Module, index: int) -> BlockParts:
    """Return the parts of block `index`.

    Raises:
        UserError: The block belongs to a family that cannot be measured; the message names it.
    """
    block = blocks_of(model)[index]
    family = f"{type(model).__name__} ({type(block).__name__})"
    attn, norm1, norm2 = (_first(block, names) for names in (_ATTENTION, _NORM1, _NORM2))
    proj, num_heads = _first(attn, _PROJECTION), _first(attn, _NUM_HEADS)
    if not isinstance(proj, nn.Linear) or norm1 is None or norm2 is None or num_heads is None:
        raise UserError(f"{family} cannot be measured: block {index} has an unknown structure; {_SUPPORTED}")
    if not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity):
        raise UserError(
            f"{family} cannot be measured: a norm between the heads and W_O mixes the heads, "
            "so the update of a single head is not defined"
        )
    return BlockParts(
        block=block,
        attn=attn,
        proj=proj,
        gamma=_first(block, _GAMMA),
        norm1=norm1,
        norm2=norm2,
        gate=getattr(attn, "gate", None),
        num_heads=int(num_heads),
        pathway=getattr(block, "pathway", None),
    )


def features(model: nn.Module, images: Tensor) -> Tensor:
    """Return the tokens (B, N, D) that a model computes from images (B, C, H, W), before pooling.

    Raises:
        UserError: The model is of another library than timm and Hugging Face's transformers, or refuses the images.
    """
    forward_features: Any = getattr(model, "forward_features", None)  # not defined by Hugging Face's models
    if forward_features is not None:
        return forward_features(images)  # type: ignore[no-any-return]
    if "pixel_values" not in signature(model.forward).parameters:
        raise UserError(f"{type(model).__name__} cannot be measured: {_SUPPORTED}")
    try:
        return model(pixel_values=images).last_hidden_state  # type: ignore[no-any-return]
    except UserError:
        raise
    except ValueError as error:  # such as images of another size
        raise UserError(f"images: {type(model).__name__} refuses them: {first_line(error)}") from error


def final_norm(model: nn.Module) -> nn.Module:
    """Return the norm after the last block, or else that of the pooled tokens; Identity for a toy."""
    norms = (_first(model, (name,)) for name in _FINAL_NORM)
    return next((norm for norm in norms if norm is not None and not isinstance(norm, nn.Identity)), nn.Identity())


def class_count(model: nn.Module) -> int:
    """Return the number of classes of a model's classifier; 0 if `classify` finds none."""
    return int(getattr(model, "num_classes", 0)) if hasattr(model, "forward_head") else 0


def classify(model: nn.Module, last: Tensor) -> Tensor | None:
    """Return the class logits (B, K) of the last block's output (B, N, D); None if the model has no classifier."""
    if not class_count(model):
        return None
    head: Any = model.forward_head
    logits: Tensor = head(getattr(model, "norm", nn.Identity())(last))
    return logits


def query_key_maps(model: nn.Module, parts: BlockParts) -> tuple[Tensor, Tensor] | None:
    """Return the weights of the query and key maps of every head, (H, d, D) each, multiplied by the gain of `norm1`.

    Returns None if the logits are not a bilinear form of normalized tokens with these weights, as with query-key norms,
    rotary positions or other layouts.
    """
    attn: Any = parts.attn
    gain = getattr(parts.norm1, "weight", None)
    normed = any(not isinstance(getattr(attn, name, nn.Identity()), nn.Identity) for name in ("q_norm", "k_norm"))
    rotary = any(getattr(model, name, None) is not None for name in ("rope", "rope_embeddings"))
    if gain is None or normed or rotary:
        return None
    if isinstance(getattr(attn, "qkv", None), nn.Linear):
        q, k, _ = attn.qkv.weight.chunk(3)
    elif isinstance(getattr(attn, "q_proj", None), nn.Linear) and isinstance(getattr(attn, "k_proj", None), nn.Linear):
        q, k = attn.q_proj.weight, attn.k_proj.weight
    else:
        return None
    q, k = ((w * gain).unflatten(0, (parts.num_heads, -1)).detach() for w in (q, k))
    return q, k


@torch.no_grad()
def sharpen(model: nn.Module, factor: float) -> None:
    """Multiply the logits of every head of every block by a factor, by scaling the query maps in place.

    Raises:
        UserError: The model computes its queries in an unknown way.
    """
    for index in range(len(blocks_of(model))):
        attn: Any = block_parts(model, index).attn
        norm = _first(attn, ("q_norm",))
        if norm is not None and not isinstance(norm, nn.Identity):
            queries = [getattr(norm, "weight", None), getattr(norm, "bias", None)]
        elif isinstance(getattr(attn, "qkv", None), nn.Linear):
            width = attn.qkv.out_features // 3
            bias = attn.qkv.bias if attn.qkv.bias is not None else getattr(attn, "q_bias", None)
            queries = [attn.qkv.weight[:width], None if bias is None else bias[:width]]
        elif isinstance(_first(attn, _QUERY), nn.Linear):
            queries = [_first(attn, _QUERY).weight, _first(attn, _QUERY).bias]
        else:
            raise UserError(f"{type(model).__name__} ({type(attn).__name__}): the query map cannot be scaled")
        if queries[0] is None:
            raise UserError(f"{type(model).__name__}: the query norm has no gain, so queries cannot be scaled")
        for tensor in queries:
            if tensor is not None:
                tensor.mul_(factor)


def _first(owner: Any, paths: Sequence[str]) -> Any:
    """Return the first of several dotted attributes that an object has and that is not None; else None."""
    for path in paths:
        value = owner
        for name in path.split("."):
            value = getattr(value, name, None)
        if value is not None:
            return value
    return None
