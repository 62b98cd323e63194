"""Fused attention for language models whose heads have a learned sink logit, such as gpt-oss.

Transformers computes their attention without `scaled_dot_product_attention`, but measurements read queries, keys and
values from the call of that function. `fused_with_sink_logits` computes the same attention through such a call: the
sink is one more column, with a key and a value of zero.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MODEL_TYPES = ("gpt_oss",)
"""Types of models, as in their configuration, whose heads have a sink logit."""
NAME = "fused_with_sink_logits"
"""Name under which transformers knows the function; it refuses names that contain `sdpa` for these models."""


def implementations(model_class: Any) -> dict[str, str]:
    """Return the implementations with which a class of transformers can be measured, as arguments of its constructor.

    Attention is fused. Mixtures of experts compute one expert after the other, which is the only way that also works in
    float64, where edits are checked.
    """
    return {"attn_implementation": _attention(model_class), "experts_implementation": "eager"}


def _attention(model_class: Any) -> str:
    if model_class.config_class.model_type not in MODEL_TYPES:
        return "sdpa" if model_class._supports_sdpa else "eager"  # the tap says why eager attention is not measured
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, fused_with_sink_logits)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    return NAME


def fused_with_sink_logits(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    s_aux: Tensor,
    dropout: float = 0.0,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return the weighted values (B, N, H, d), and no weights.

    Args:
        module: The attention; it is causal.
        query: (B, H, N, d).
        key: (B, G, N, d); the H / G heads of a group share it.
        value: (B, G, N, d).
        attention_mask: Which queries can attend to which tokens, (B or 1, 1, N, N) bool; None: causal.
        s_aux: The sink logits, (H,).
        dropout: Probability of dropping a weight.
        scaling: Factor of the logits of the tokens.
    """
    shared, n = query.shape[1] // key.shape[1], query.shape[2]
    key, value = (F.pad(x.repeat_interleave(shared, dim=1), (0, 0, 0, 1)) for x in (key, value))
    if attention_mask is None:
        attention_mask = torch.ones(1, 1, n, n, dtype=torch.bool, device=query.device).tril()
    tokens = torch.zeros_like(attention_mask, dtype=query.dtype).masked_fill(~attention_mask, -torch.inf)
    sinks = s_aux.to(query)[None, :, None, None].expand(len(tokens), -1, n, 1)
    mask = torch.cat((tokens.expand(-1, len(s_aux), -1, -1), sinks), dim=-1)
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, scale=scaling)
    return out.transpose(1, 2).contiguous(), None
