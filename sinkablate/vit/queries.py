"""The query and key maps of a model's heads: their weights, and sharper logits."""

from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError
from sinkablate.vit.anatomy import BlockParts, block_parts, blocks_of, linear_weight
from sinkablate.vit.family import first_of


def query_key_maps(model: nn.Module, parts: BlockParts) -> tuple[Tensor, Tensor] | None:
    """Return the weights of the query and key maps of every head, (H, d, D) each, multiplied by the gain of `norm1`.

    Returns None if the logits are not a bilinear form of the tokens with these weights, as with query-key norms, rotary
    positions or other layouts. A post-norm block has no `norm1`: its attention reads the stream as it is.
    """
    attn, family = parts.attn, parts.family
    gain = 1.0 if not family.norm1 else getattr(parts.norm1, "weight", None)
    normed = any(not isinstance(getattr(attn, name, nn.Identity()), nn.Identity) for name in ("q_norm", "k_norm"))
    if gain is None or normed or first_of(model, family.rotary) is not None:
        return None
    fused, query, key = (first_of(attn, paths) for paths in (family.qkv, family.query, family.key))
    if isinstance(fused, nn.Module):
        q, k, _ = linear_weight(fused).chunk(3)
    elif isinstance(query, nn.Linear) and isinstance(key, nn.Linear):
        q, k = query.weight, key.weight
    else:
        return None
    q, k = ((w * gain).unflatten(0, (parts.num_heads, -1)).detach() for w in (q, k))
    return q, k


@torch.no_grad()
def sharpen(model: nn.Module, factor: float) -> None:
    """Multiply the logits of every head of every block by a factor, by scaling the query projections in place.

    Raises:
        UserError: The model computes its queries in an unknown way.
    """
    for index in range(len(blocks_of(model))):
        parts = block_parts(model, index)
        attn: Any = parts.attn
        norm = first_of(attn, ("q_norm",))
        fused, query = first_of(attn, parts.family.qkv), first_of(attn, parts.family.query)
        if norm is not None and not isinstance(norm, nn.Identity):
            queries = [getattr(norm, "weight", None), getattr(norm, "bias", None)]
        elif isinstance(fused, nn.Module):
            weight = linear_weight(fused)
            width = len(weight) // 3
            bias: Any = fused.bias if fused.bias is not None else getattr(attn, "q_bias", None)
            queries = [weight[:width], None if bias is None else bias[:width]]
        elif isinstance(query, nn.Linear):
            queries = [query.weight, query.bias]
        else:
            raise UserError(f"{type(model).__name__} ({type(attn).__name__}): the query projection cannot be scaled")
        if queries[0] is None:
            raise UserError(f"{type(model).__name__}: the query norm has no gain, so queries cannot be scaled")
        for tensor in queries:
            if tensor is not None:
                tensor.mul_(factor)
