"""The blocks of a transformer of timm or of Hugging Face's transformers, and the parts of each.

`families.py` lists where each family keeps its parts, and `refusals.py` which models cannot be measured; this is the
only module that reads these tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any

from torch import Tensor, nn

from sinkablate.config.checks import block_indices
from sinkablate.errors import UserError, first_line
from sinkablate.vit.families import FAMILIES
from sinkablate.vit.family import Family, first_of, model_type
from sinkablate.vit.refusals import refusal_of
from sinkablate.vit.tokens import text_tokens

_SUPPORTED = "expected a timm vision transformer, or a vision or language model from Hugging Face transformers"


@dataclass(frozen=True)
class BlockParts:
    """The parts of one block. Its `family` says in which order they run."""

    family: Family
    block: nn.Module
    attn: nn.Module
    """The attention."""
    update: nn.Module
    """The module whose output, or its first element, is the attention update before LayerScale, (B, N, D)."""
    proj: Any
    """The output map W_O: an `nn.Linear`, or a Conv1D of GPT-2."""
    gamma: Tensor | None
    """LayerScale (D,), or None."""
    norm1: nn.Module | None
    """The norm before the attention; None in a post-norm block."""
    norm2: nn.Module
    """The norm whose input is the residual stream after the attention update."""
    gate: nn.Module | None
    """The linear map to gate logits, or None."""
    num_heads: int
    """The number of query heads."""
    mlp_out: nn.Module | None = None
    """The last linear map of the MLP, whose inputs (B, N, K) are the activations of its neurons, or None."""
    pathway: nn.Module | None = None
    """The module that adds a second update (B, N, D) to attention's, or None."""

    @property
    def out_weight(self) -> Tensor:
        """The weight of the output map W_O, (D, H d)."""
        return linear_weight(self.proj)

    @cached_property
    def out_map(self) -> Tensor:
        """The map of every head into the residual stream, diag(gamma) W_O with W_O split into heads, (H, D, d)."""
        weight = self.out_weight.detach()
        if self.gamma is not None:
            weight = weight * self.gamma.detach()[:, None]
        return weight.reshape(weight.shape[0], self.num_heads, -1).transpose(0, 1)

    @property
    def out_bias(self) -> Tensor | None:
        """The bias of the output map, (D,), or None."""
        bias: Tensor | None = self.proj.bias
        return bias


def linear_weight(module: Any) -> Tensor:
    """Return the weight of a linear map as (outputs, inputs); a Conv1D of transformers stores its transpose."""
    weight: Tensor = module.weight
    return weight if isinstance(module, nn.Linear) else weight.T


def backbone_of(task: nn.Module) -> nn.Module | None:
    """Return the model of a task that diagnostics measure, without compilation; None if there is none."""
    backbone = getattr(task, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else None


def blocks_of(model: nn.Module) -> Sequence[nn.Module]:
    """Return the transformer blocks, from first to last.

    Raises:
        UserError: The model has no list of blocks under any of the known names, or is known not to be measurable.
    """
    blocks = _block_list(model)
    if reason := refusal_of(model):
        raise UserError(f"{type(model).__name__} cannot be measured: {reason}")
    if blocks is None:
        raise UserError(
            f"{type(model).__name__} cannot be measured: it has no list of transformer blocks; {_SUPPORTED}"
        )
    return list(blocks)


def family_of(model: nn.Module) -> Family:
    """Return the family of a model: the first of the table whose parts its first block has.

    Raises:
        UserError: The model belongs to no family of the table, or to one that cannot be measured.
    """
    return _family(model, 0)


def reads_texts(model: nn.Module) -> bool:
    """Return whether a model is known to read token ids instead of images."""
    try:
        return family_of(model).reads == "texts"
    except UserError:
        return False


def _family(model: nn.Module, index: int) -> Family:
    block = blocks_of(model)[index]
    name = f"{type(model).__name__} ({type(block).__name__})"
    family = next((family for family in FAMILIES if _matches(model, block, family)), None)
    if family is None:
        raise UserError(f"{name} cannot be measured: block {index} has an unknown structure; {_SUPPORTED}")
    if family.refusal:
        raise UserError(f"{name} cannot be measured: {family.refusal}")
    return family


def _matches(model: nn.Module, block: nn.Module, family: Family) -> bool:
    """Return whether a model keeps its blocks, and a block its parts, where a family does."""
    if family.model_types and model_type(model) not in family.model_types:
        return False
    attn, weight = first_of(block, family.attn), getattr(first_of(block, family.proj), "weight", None)
    if weight is None or weight.ndim != 2:
        return False
    needed = [(model, family.blocks), (block, family.norm2), (attn, family.num_heads)]
    needed += [(block, paths) for paths in (family.norm1, family.requires) if paths]
    return all(first_of(owner, paths) is not None for owner, paths in needed)


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


def has_output_gate(model: nn.Module) -> bool:
    """Return whether a block of a model has a gate after its attention (G1), for which effective rules exist."""
    parts = [block_parts(model, index) for index in range(len(blocks_of(model)))]
    return any(
        part.gate is not None and getattr(getattr(part.attn, "config", None), "gate_position", "output") == "output"
        for part in parts
    )


def block_parts(model: nn.Module, index: int) -> BlockParts:
    """Return the parts of block `index`.

    Raises:
        UserError: The block belongs to a family that cannot be measured; the message names it.
    """
    family, block = _family(model, index), blocks_of(model)[index]
    attn, proj = first_of(block, family.attn), first_of(block, family.proj)
    if not isinstance(first_of(attn, family.inner_norm) or nn.Identity(), nn.Identity):
        raise UserError(
            f"{type(model).__name__} ({type(block).__name__}) cannot be measured: a norm between the heads and W_O "
            "mixes the heads, so the update of a single head is not defined"
        )
    return BlockParts(
        family=family,
        block=block,
        attn=attn,
        update=first_of(block, family.update) or attn,
        proj=proj,
        gamma=first_of(block, family.gamma),
        norm1=first_of(block, family.norm1),
        norm2=first_of(block, family.norm2),
        gate=first_of(block, family.gate),
        num_heads=int(first_of(attn, family.num_heads)),
        mlp_out=first_of(block, family.mlp_out),
        pathway=getattr(block, "pathway", None),
    )


def features(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the tokens (B, N, D) that a model computes before pooling.

    Args:
        model: The model.
        inputs: Images (B, C, H, W), or texts (B, 2, N) as described at `text_tokens`.

    Raises:
        UserError: The model is from a library other than timm and Hugging Face's transformers, or refuses the images.
    """
    if reads_texts(model):
        return model(input_ids=text_tokens(inputs)[0], use_cache=False).last_hidden_state  # type: ignore[no-any-return]
    forward_features: Any = getattr(model, "forward_features", None)  # not defined by Hugging Face's models
    if forward_features is not None:
        return forward_features(inputs)  # type: ignore[no-any-return]
    if "pixel_values" not in signature(model.forward).parameters:
        raise UserError(f"{type(model).__name__} cannot be measured: {_SUPPORTED}")
    try:
        return model(pixel_values=inputs).last_hidden_state  # type: ignore[no-any-return]
    except UserError:
        raise
    except ValueError as error:  # such as images of another size
        raise UserError(f"images: {type(model).__name__} refuses them: {first_line(error)}") from error


def final_norm(model: nn.Module) -> nn.Module:
    """Return the norm after the last block, or else that of the pooled tokens; Identity if there is neither."""
    norms = (first_of(model, (path,)) for path in family_of(model).final_norm)
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


def _block_list(model: nn.Module) -> nn.Sequential | nn.ModuleList | None:
    """Return the list of blocks that a model has under one of the known names, or None."""
    lists = (first_of(model, (path,)) for family in FAMILIES for path in family.blocks)
    return next((x for x in lists if isinstance(x, nn.Sequential | nn.ModuleList) and len(x)), None)
