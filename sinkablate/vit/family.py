"""What describes a family of transformers: where it keeps the parts of a block."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Paths = tuple[str, ...]
"""Dotted attributes, of which the first that exists is used."""

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "config.num_attention_heads")


@dataclass(frozen=True, kw_only=True)
class Family:
    """One layout of transformer blocks.

    In a pre-norm block the stream x becomes x + gamma * attn(norm1(x)), and the MLP follows after `norm2`. In a
    post-norm block it becomes norm2(x + attn(x)). In both, the input of `norm2` is the stream plus the update.
    """

    name: str
    """What the family is called in messages."""
    blocks: Paths
    """The list of blocks, from the model."""
    attn: Paths
    """The attention, as a path from the block, like the following ones unless stated."""
    proj: Paths
    """The output map W_O."""
    update: Paths = ()
    """The module whose output, or its first element, is the attention update; the attention itself if empty."""
    norm1: Paths = ()
    """The norm before the attention; empty for a post-norm block."""
    norm2: Paths
    """The norm whose input is the residual stream after the attention update."""
    mlp_out: Paths = ()
    """The last linear map of the MLP, whose inputs are the activations of its neurons."""
    gamma: Paths = ()
    """LayerScale."""
    gate: Paths = ()
    """The linear map to gate logits."""
    inner_norm: Paths = ("norm", "attn_sub_norm")
    """A norm between the heads and W_O, from the attention; a block that has one cannot be measured."""
    requires: Paths = ()
    """Further parts that tell the family from others with the same names."""
    model_types: tuple[str, ...] = ()
    """Model types of transformers to which the family is limited; any if empty."""
    num_heads: Paths = _HEADS
    """The number of query heads, from the attention."""
    qkv: Paths = ()
    """A map to queries, keys and values together, the queries first; from the attention."""
    query: Paths = ()
    """The map to queries, from the attention."""
    key: Paths = ()
    """The map to keys, from the attention."""
    value: Paths = ()
    """The map to values, from the attention."""
    rotary: Paths = ()
    """A part whose existence means that positions rotate queries and keys, from the model."""
    final_norm: Paths = ()
    """The norm after the last block, from the model."""
    reads: Literal["images", "texts"] = "images"
    causal: bool = False
    """Whether a token attends only to itself and the tokens before it."""
    refusal: str = ""
    """Why the family cannot be measured; empty if it can."""


def model_type(model: Any) -> str:
    """Return the type of a model of transformers, such as `bert`; empty for other models."""
    return str(first_of(model, ("config.model_type",)) or "")


def first_of(owner: Any, paths: Sequence[str]) -> Any:
    """Return the first of several dotted attributes that an object has and that is not None; else None."""
    for path in paths:
        value = owner
        for name in path.split("."):
            value = getattr(value, name, None)
        if value is not None:
            return value
    return None
