"""The families of transformers that can be measured, as data: where each keeps the parts of a block.

To support another layout, add a value to `FAMILIES`; nothing else changes. Models that no family can describe are in
`refusals.py`.
"""

from dataclasses import replace

from sinkablate.vit.family import Family

_ATTENTION = ("attn", "attention", "self_attn")

VISION = Family(
    name="vision transformer",
    blocks=("blocks", "layers", "encoder.layer", "encoder.layers", "model.layer"),
    attn=_ATTENTION,
    proj=tuple(f"{attn}.{name}" for attn in _ATTENTION for name in ("proj", "o_proj", "out_proj")),
    norm1=("norm1", "layernorm_before", "layer_norm1"),
    norm2=("norm2", "layernorm_after", "layer_norm2"),
    mlp_out=("mlp.fc2", "mlp.down_proj"),
    gamma=("ls1.gamma", "gamma_1", "layer_scale1.lambda1"),
    gate=tuple(f"{attn}.gate" for attn in _ATTENTION),
    qkv=("qkv",),
    query=("q_proj", "query"),
    key=("k_proj",),
    value=("v_proj", "value"),
    rotary=("rope", "rope_embeddings"),
    final_norm=("norm", "layernorm", "post_layernorm", "fc_norm", "pooler.layernorm"),
)

CLIP_TEXT = Family(
    name="CLIP's text encoder",
    blocks=("encoder.layers", "text_model.encoder.layers"),
    attn=("self_attn",),
    proj=("self_attn.out_proj",),
    norm1=("layer_norm1",),
    norm2=("layer_norm2",),
    query=("q_proj",),
    key=("k_proj",),
    final_norm=("final_layer_norm", "text_model.final_layer_norm"),
    model_types=("clip_text_model",),
    reads="texts",
    causal=True,
)

SIGLIP_TEXT = replace(CLIP_TEXT, name="SigLIP's text encoder", model_types=("siglip_text_model",), causal=False)

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

PRE_NORM_BERT = replace(
    BERT,
    name="BERT with norms before its maps",
    norm1=("attention.LayerNorm", "attention.self_attn_layer_norm"),
    norm2=("intermediate.LayerNorm", "LayerNorm"),
    rotary=("encoder.layer.0.attention.self.rotary_embeddings",),
    final_norm=("LayerNorm", "encoder.LayerNorm", "encoder.emb_layer_norm_after"),
)
"""ESM, RoBERTa-PreLayerNorm and XLM-RoBERTa-XL."""

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

MODERNBERT_DECODER = replace(
    MODERNBERT,
    name="ModernBERT decoder",
    model_types=("modernbert-decoder",),
    qkv=(),
    query=("q_proj",),
    key=("k_proj",),
    causal=True,
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

GPT_BIGCODE = replace(GPT2, name="GPT BigCode", model_types=("gpt_bigcode",), qkv=())
"""The rows of its map to queries, keys and values are in another order."""

SANDWICH = Family(
    name="Gemma 2, Gemma 3, GLM 4 and OLMo 2",
    blocks=("layers",),
    attn=("self_attn",),
    proj=("self_attn.o_proj",),
    norm2=("post_attention_layernorm",),
    requires=("post_feedforward_layernorm", "post_self_attn_layernorm"),
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
    norm1=("input_layernorm", "attention_layernorm"),
    norm2=("post_attention_layernorm", "feedforward_layernorm"),
    query=("q_proj",),
    key=("k_proj",),
    rotary=("rotary_emb",),
    final_norm=("norm",),
    reads="texts",
    causal=True,
)
"""Llama, Mistral, Mixtral, Phi 3, Qwen 2 and 3, Gemma 1, OLMo 1, gpt-oss and others with the same blocks."""

EUROBERT = replace(LLAMA, name="EuroBERT", model_types=("eurobert",), causal=False)

NOMIC = Family(
    name="Nomic BERT",
    blocks=("layers",),
    attn=("self_attn",),
    proj=("self_attn.o_proj",),
    norm2=("post_attention_layernorm",),
    requires=("post_mlp_layernorm",),
    query=("q_proj",),
    key=("k_proj",),
    rotary=("rotary_emb",),
    reads="texts",
)
"""Nomic BERT and Jina Embeddings 3, which are post-norm with rotary positions."""

OPT = Family(
    name="OPT",
    blocks=("decoder.layers", "layers"),
    attn=("self_attn",),
    proj=("self_attn.out_proj",),
    norm1=("self_attn_layer_norm",),
    norm2=("final_layer_norm",),
    query=("q_proj",),
    key=("k_proj",),
    final_norm=("decoder.final_layer_norm", "layer_norm"),
    model_types=("opt", "biogpt"),
    reads="texts",
    causal=True,
)

GPT_NEOX = Family(
    name="GPT-NeoX",
    blocks=("layers", "h"),
    attn=("attention", "self_attn", "self_attention"),
    proj=("attention.dense", "self_attn.dense", "self_attention.dense"),
    norm1=("input_layernorm",),
    norm2=("post_attention_layernorm",),
    rotary=("rotary_emb",),
    final_norm=("final_layer_norm", "final_layernorm", "ln_f"),
    reads="texts",
    causal=True,
)
"""GPT-NeoX and Falcon whose attention and MLP run one after the other, and Persimmon."""

FAMILIES = (
    CLIP_TEXT,
    SIGLIP_TEXT,
    VISION,
    BERT,
    PRE_NORM_BERT,
    DISTILBERT,
    MODERNBERT_DECODER,
    MODERNBERT,
    GPT_BIGCODE,
    GPT2,
    SANDWICH,
    NOMIC,
    EUROBERT,
    LLAMA,
    OPT,
    GPT_NEOX,
)
