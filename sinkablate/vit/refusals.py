"""Models of transformers that cannot be measured, and the reason for each."""

from dataclasses import dataclass
from typing import Any

from sinkablate.vit.family import first_of, model_type


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """The reason why some types of models cannot be measured."""

    model_types: tuple[str, ...]
    """Model types, as in the configurations of transformers."""
    reason: str
    only_if: tuple[str, ...] = ()
    """Dotted attributes of the model, of which one must be true; empty if there is no condition."""


_PARALLEL = (
    "the attention and the MLP of a block read the same input and are added together, so there is no residual stream "
    "after the attention against which the measurement can be checked"
)
_NOT_FUSED = "computed without scaled_dot_product_attention, from whose calls queries, keys and values are captured"

REFUSALS = (
    Refusal(
        model_types=("t5", "mt5", "umt5", "bart", "mbart", "pegasus", "marian", "m2m_100", "blenderbot", "led"),
        only_if=("decoder",),
        reason="an encoder-decoder has two stacks of blocks, one of which also attends to the tokens of the other",
    ),
    Refusal(
        model_types=("t5", "mt5", "umt5", "mpnet"),
        reason=f"a relative position bias is added to the attention scores, which are {_NOT_FUSED}",
    ),
    Refusal(
        model_types=("bloom", "mpt"),
        reason=f"a bias for distance (ALiBi) is added to the attention scores, which are {_NOT_FUSED}",
    ),
    Refusal(
        model_types=("deberta", "deberta-v2", "xlnet"),
        reason=f"the attention scores are a sum of terms for content and for relative positions, and are {_NOT_FUSED}",
    ),
    Refusal(
        model_types=("albert",),
        reason="all blocks share one set of weights, which runs several times in a forward pass",
    ),
    Refusal(model_types=("phi", "cohere", "cohere2", "gptj", "codegen"), reason=_PARALLEL),
    Refusal(model_types=("gpt_neox", "stablelm"), only_if=("config.use_parallel_residual",), reason=_PARALLEL),
    Refusal(
        model_types=("falcon",), only_if=("config.parallel_attn", "config.new_decoder_architecture"), reason=_PARALLEL
    ),
    Refusal(
        model_types=("big_bird", "longformer", "nystromformer", "reformer"),
        reason=f"its sparse or approximate attention is {_NOT_FUSED}",
    ),
    Refusal(
        model_types=(
            "convbert",
            "ctrl",
            "gpt_neo",
            "ibert",
            "openai-gpt",
            "roformer",
            "splinter",
            "squeezebert",
            "xglm",
        ),
        reason=f"its attention is {_NOT_FUSED}",
    ),
    Refusal(model_types=("flaubert", "xlm"), reason="attentions, norms and MLPs are in separate lists, not in blocks"),
    Refusal(
        model_types=("mobilebert",),
        reason="its attention updates a narrower copy of the residual stream in every block",
    ),
    Refusal(model_types=("fnet", "mamba", "mamba2", "rwkv"), reason="its blocks have no attention"),
    Refusal(model_types=("jamba", "lfm2", "recurrent_gemma"), reason="some of its blocks have no attention"),
)
"""The first that applies to a model names the reason."""


def refusal_of(model: Any) -> str:
    """Return the known reason why a model cannot be measured; empty without one."""
    kind = model_type(model)
    for refusal in REFUSALS:
        applies = not refusal.only_if or any(first_of(model, (path,)) for path in refusal.only_if)
        if kind in refusal.model_types and applies:
            return refusal.reason
    return ""
