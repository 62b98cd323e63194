"""Where a model keeps its blocks, and a block its attention: the one place that knows the families.

timm's vision transformers and those of Hugging Face's transformers differ in the names of the same pieces.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError

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
    """The pieces of one pre-norm block, x + gamma * attn(norm1(x)) and then the MLP behind `norm2`."""

    block: nn.Module
    attn: nn.Module
    """Its output is the attention update before LayerScale, (B, N, D), or the first of a tuple."""
    proj: nn.Linear
    """W_O, (D, H d)."""
    gamma: Tensor | None
    """LayerScale (D,), None where there is none."""
    norm1: nn.Module
    norm2: nn.Module
    """Its input is the residual stream after the attention update."""
    gate: nn.Module | None
    """Linear map to gate logits, where the attention has one."""
    num_heads: int
    pathway: nn.Module | None = None
    """Writes a second update (B, N, D) beside attention's, where the block has one."""


def backbone_of(task: nn.Module) -> nn.Module | None:
    """What a task offers to diagnostics, its original, uncompiled model; None if it has none."""
    found = getattr(task, "backbone", None)
    return found if isinstance(found, nn.Module) else None


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """The transformer blocks, first to last.

    Raises:
        UserError: The model has no list of them where one is looked for.
    """
    blocks = _first(model, _BLOCKS)
    if not isinstance(blocks, (nn.Sequential, nn.ModuleList)) or len(blocks) == 0:
        raise UserError(f"{type(model).__name__} cannot be measured: it has no list of transformer blocks")
    return list(blocks)


def block_numbers(model: nn.Module, blocks: Sequence[int] | None) -> list[int]:
    """Return the numbers of the named blocks, rising; negative numbers count from the last block, None means all.

    Raises:
        UserError: The list is empty, or a block is outside the model.
    """
    depth = len(blocks_of(model))
    if blocks is None:
        return list(range(depth))
    if not blocks:
        raise UserError("blocks: name at least one, or leave the key out to measure all")
    for block in blocks:
        if not -depth <= block < depth:
            raise UserError(f"blocks: {block} is outside the model's {depth} blocks")
    return sorted({block % depth for block in blocks})


def block_parts(model: nn.Module, index: int) -> BlockParts:
    """Pieces of block `index`.

    Raises:
        UserError: The block is of a family that cannot be measured; the message names it.
    """
    block = blocks_of(model)[index]
    family = f"{type(model).__name__} ({type(block).__name__})"
    attn, norm1, norm2 = (_first(block, names) for names in (_ATTENTION, _NORM1, _NORM2))
    proj, num_heads = _first(attn, _PROJECTION), _first(attn, _NUM_HEADS)
    if not isinstance(proj, nn.Linear) or norm1 is None or norm2 is None or num_heads is None:
        raise UserError(f"{family} cannot be measured: block {index} is not attention and MLP in sequence")
    if not isinstance(getattr(attn, "norm", nn.Identity()), nn.Identity):
        raise UserError(
            f"{family} cannot be measured: a norm between the heads and W_O mixes them, "
            "so that no head has an update of its own"
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
    """The tokens (B, N, D) that a model makes of images (B, C, H, W), before any pooling."""
    of_timm: Any = getattr(model, "forward_features", None)
    found: Tensor = model(pixel_values=images).last_hidden_state if of_timm is None else of_timm(images)
    return found


def final_norm(model: nn.Module) -> nn.Module:
    """The norm behind the last block, that of the pooled tokens where there is no other; Identity for a toy."""
    norms = (_first(model, (name,)) for name in _FINAL_NORM)
    return next((norm for norm in norms if norm is not None and not isinstance(norm, nn.Identity)), nn.Identity())


def classify(model: nn.Module, last: Tensor) -> Tensor | None:
    """Class logits (B, K) of the last block's output (B, N, D); None where the model has no classifier."""
    head: Any = getattr(model, "forward_head", None)
    if head is None or not getattr(model, "num_classes", 0):
        return None
    logits: Tensor = head(getattr(model, "norm", nn.Identity())(last))
    return logits


def query_key_maps(model: nn.Module, parts: BlockParts) -> tuple[Tensor, Tensor] | None:
    """Weights of the query and key maps of every head, (H, d, D) each, the gain of the norm before them folded in.

    None where logits are not this bilinear form of normed tokens: query-key norms, rotary positions, other layouts.
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
    """Multiply the logits of every head of every block by a factor, through the query maps, in place.

    Raises:
        UserError: Queries are made in a way that is not known.
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
            raise UserError(f"{type(model).__name__} ({type(attn).__name__}): its queries cannot be scaled")
        if queries[0] is None:
            raise UserError(f"{type(model).__name__}: its query norm has no gain, so that queries cannot be scaled")
        for tensor in queries:
            if tensor is not None:
                tensor.mul_(factor)


def _first(owner: Any, paths: Sequence[str]) -> Any:
    """The first of some dotted attributes that an object has; None where it has none."""
    for path in paths:
        found = owner
        for name in path.split("."):
            found = getattr(found, name, None)
        if found is not None:
            return found
    return None
