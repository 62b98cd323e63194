"""The families of transformers that can be measured, as data: where each keeps the parts of a block.

A family is a value of `Family`. To support another layout, add a value to `FAMILIES`; nothing else changes. Paths are
dotted attributes; of several, the first that exists is used.
"""

from dataclasses import dataclass
from typing import Literal

Paths = tuple[str, ...]

_ATTENTION = ("attn", "attention", "self_attn")
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
    gamma: Paths = ()
    """LayerScale."""
    gate: Paths = ()
    """The linear map to gate logits."""
    inner_norm: Paths = ("norm", "attn_sub_norm")
    """A norm between the heads and W_O, from the attention; a block that has one cannot be measured."""
    requires: Paths = ()
    """Further parts that tell the family from others with the same names."""
    num_heads: Paths = _HEADS
    """The number of query heads, from the attention."""
    qkv: Paths = ()
    """A map to queries, keys and values together, the queries first; from the attention."""
    query: Paths = ()
    """The map to queries, from the attention."""
    key: Paths = ()
    """The map to keys, from the attention."""
    rotary: Paths = ()
    """A part whose existence means that positions rotate queries and keys, from the model."""
    final_norm: Paths = ()
    """The norm after the last block, from the model."""
    reads: Literal["images", "texts"] = "images"
    causal: bool = False
    """Whether a token attends only to itself and the tokens before it."""
    refusal: str = ""
    """Why the family cannot be measured; empty if it can."""


VISION = Family(
    name="vision transformer",
    blocks=("blocks", "layers", "encoder.layer", "encoder.layers", "model.layer"),
    attn=_ATTENTION,
    proj=tuple(f"{attn}.{name}" for attn in _ATTENTION for name in ("proj", "o_proj", "out_proj")),
    norm1=("norm1", "layernorm_before", "layer_norm1"),
    norm2=("norm2", "layernorm_after", "layer_norm2"),
    gamma=("ls1.gamma", "gamma_1", "layer_scale1.lambda1"),
    gate=tuple(f"{attn}.gate" for attn in _ATTENTION),
    qkv=("qkv",),
    query=("q_proj", "query"),
    key=("k_proj",),
    rotary=("rope", "rope_embeddings"),
    final_norm=("norm", "layernorm", "post_layernorm", "fc_norm", "pooler.layernorm"),
)

BERT = Family(
    name="BERT",
    blocks=("encoder.layer",),
    attn=("attention.self",),
    proj=("attention.output.dense",),
    update=("attention.output.dense",),
    norm2=("attention.output.LayerNorm",),
    query=("query",),
    key=("key",),
    reads="texts",
)
"""BERT, MiniLM, RoBERTa and others with the same blocks."""

DISTILBERT = Family(
    name="DistilBERT",
    blocks=("transformer.layer",),
    attn=("attention",),
    proj=("attention.out_lin",),
    norm2=("sa_layer_norm",),
    query=("q_lin",),
    key=("k_lin",),
    reads="texts",
)

MODERNBERT = Family(
    name="ModernBERT",
    blocks=("layers",),
    attn=("attn",),
    proj=("attn.Wo",),
    norm1=("attn_norm",),
    norm2=("mlp_norm",),
    num_heads=("config.num_attention_heads",),
    qkv=("Wqkv",),
    rotary=("rotary_emb",),
    final_norm=("final_norm",),
    reads="texts",
)

GPT2 = Family(
    name="GPT-2",
    blocks=("h",),
    attn=("attn",),
    proj=("attn.c_proj",),
    norm1=("ln_1",),
    norm2=("ln_2",),
    qkv=("c_attn",),
    final_norm=("ln_f",),
    reads="texts",
    causal=True,
)

SANDWICH = Family(
    name="Gemma 2, Gemma 3 and OLMo 2",
    blocks=("layers",),
    attn=("self_attn",),
    proj=("self_attn.o_proj",),
    norm2=("post_attention_layernorm",),
    requires=("post_feedforward_layernorm",),
    reads="texts",
    causal=True,
    refusal="a norm after W_O rescales the sum of all heads for every token, so the update of a single head is not "
    "defined",
)

LLAMA = Family(
    name="Llama",
    blocks=("layers",),
    attn=("self_attn",),
    proj=("self_attn.o_proj",),
    norm1=("input_layernorm",),
    norm2=("post_attention_layernorm",),
    query=("q_proj",),
    key=("k_proj",),
    rotary=("rotary_emb",),
    final_norm=("norm",),
    reads="texts",
    causal=True,
)
"""Llama, Mistral, Qwen 2 and 3, Gemma 1, gpt-oss and others with the same blocks."""

FAMILIES = (VISION, BERT, DISTILBERT, MODERNBERT, GPT2, SANDWICH, LLAMA)
