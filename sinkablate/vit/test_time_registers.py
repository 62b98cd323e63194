"""Test-time registers: tokens without training that take over the activations of some MLP neurons (arXiv 2506.08010).

A few neurons write the outlier tokens of a vision transformer. Tokens that are zero before the first block are added
to the sequence after the class tokens, where trained registers are. In the MLP, each of these neurons gets, on every
added token, its largest activation over the patches, and zero on the patches. The weights stay as they are.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts, blocks_of, reads_texts
from sinkablate.vit.tokens import class_token_count, register_count

ATTRIBUTE = "test_time_registers"
"""Attribute of a model that holds its test-time registers."""


class TokenRegisters(nn.Module):
    """The test-time registers of a model, as hooks on its blocks.

    The hooks belong to this module, which belongs to the model, so they are copied, moved and saved with it.

    Args:
        num_cls: Number of class tokens, which the added ones follow.
        count: Number of added tokens.
        neurons: Block -> indices of the neurons in its MLP.
    """

    def __init__(self, num_cls: int, count: int, neurons: Mapping[int, Sequence[int]]) -> None:
        super().__init__()
        self.num_cls, self.count = num_cls, count
        self.neurons = tuple((block, tuple(indices)) for block, indices in sorted(neurons.items()) if indices)
        for block, indices in self.neurons:
            self.register_buffer(f"neurons{block}", torch.tensor(indices), persistent=False)

    def attach(self, model: nn.Module) -> None:
        """Add the hooks to the blocks of a model."""
        blocks_of(model)[0].register_forward_pre_hook(self.clear)
        for block, _ in self.neurons:
            mlp_out = block_parts(model, block).mlp_out
            assert mlp_out is not None
            mlp_out.register_forward_pre_hook(partial(self.move, f"neurons{block}"))

    def clear(self, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Set the added tokens to zero before the first block; a norm of the embeddings may have moved them."""
        x: Tensor = args[0]
        zeros = x.new_zeros(len(x), self.count, x.shape[-1])
        cleared = torch.cat((x[:, : self.num_cls], zeros, x[:, self.num_cls + self.count :]), dim=1)
        return (cleared, *args[1:])

    def move(self, name: str, _: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Move the activations (B, N, K) of the neurons in a block from the patches to the added tokens."""
        return (moved(args[0], getattr(self, name), self.num_cls, self.count), *args[1:])


def moved(activations: Tensor, neurons: Tensor, num_cls: int, count: int) -> Tensor:
    """Return the activations of an MLP after those of some neurons were moved to added tokens.

    Every added token gets, for each neuron, the activation of largest absolute value among the patches, with its sign.
    Class tokens keep theirs, as in the published code.

    Args:
        activations: (B, N, K), of class tokens, added tokens and patches, in this order.
        neurons: Indices of the neurons, (k,).
        num_cls: Number of class tokens.
        count: Number of added tokens.
    """
    start = num_cls + count
    of_patches = activations[:, start:, neurons]
    largest = of_patches.gather(1, of_patches.abs().argmax(dim=1, keepdim=True))
    result = activations.clone()
    result[:, num_cls:start, neurons] = largest.expand(-1, count, -1)
    result[:, start:, neurons] = 0
    return result


def require_supported(model: nn.Module) -> None:
    """Check that a model can be given test-time registers.

    Raises:
        UserError: It reads texts, has registers, or its sequence or its MLPs have an unknown structure.
    """
    key, name = ATTRIBUTE, type(model).__name__
    if reads_texts(model):
        raise UserError(f"{key}: {name} reads texts; only vision transformers can be given test-time registers")
    if getattr(model, ATTRIBUTE, None) is not None:
        raise UserError(f"{key}: the model has test-time registers already; add them to a model without registers")
    if number := register_count(model):
        raise UserError(f"{key}: the model has {number} registers of its own; leave the option out")
    if _added_by_timm(model) or isinstance(getattr(model, "embeddings", None), nn.Module):
        parts = [block_parts(model, index) for index in range(len(blocks_of(model)))]
        if not all(isinstance(part.mlp_out, nn.Linear) for part in parts):
            raise UserError(f"{key}: the MLPs of {name} have an unknown structure, so their neurons are unknown")
        return
    raise UserError(
        f"{key}: {name} builds its sequence of tokens in its own way; supported are timm's VisionTransformer and Eva, "
        "and the vision models of Hugging Face transformers"
    )


def _added_by_timm(model: nn.Module) -> bool:
    """Return whether a model adds its registers to the sequence as timm's plain models do."""
    builds = getattr(type(model), "_pos_embed", None)
    return builds is not None and builds in (VisionTransformer._pos_embed, Eva._pos_embed)


def add_registers(model: nn.Module, count: int, neurons: Mapping[int, Sequence[int]]) -> None:
    """Give a model test-time registers, in place.

    They remain in the sequence after the last block and count as registers. A timm model therefore leaves them out
    where it pools patches; a head of transformers that averages all tokens after CLS includes them.

    Args:
        model: A vision transformer that `require_supported` accepts.
        count: Number of registers; all get the same activations.
        neurons: Block -> indices of the neurons whose activations they take over.

    Raises:
        UserError: The model cannot run with a longer sequence, as with relative positions.
    """
    num_cls = class_token_count(model)
    if _added_by_timm(model):
        _lengthen_timm(model, num_cls, count)
    else:
        _lengthen_transformers(model.embeddings, num_cls, count, _width(model))
    registers = TokenRegisters(num_cls, count, neurons).to(next(model.parameters()).device)
    setattr(model, ATTRIBUTE, registers)
    registers.attach(model)


def _width(model: nn.Module) -> int:
    mlp_out: Any = block_parts(model, 0).mlp_out
    return int(mlp_out.out_features)


def _lengthen_timm(model: Any, num_cls: int, count: int) -> None:
    """Add registers that are zero, with positions that are zero."""
    zeros = next(model.parameters()).new_zeros(1, count, _width(model))
    model.reg_token = nn.Parameter(zeros, requires_grad=False)
    positions = model.pos_embed
    if positions is not None and not model.no_embed_class:
        longer = torch.cat((positions[:, :num_cls], zeros, positions[:, num_cls:]), dim=1).detach()
        model.pos_embed = nn.Parameter(longer, requires_grad=positions.requires_grad)
    if hasattr(model, "num_reg_tokens"):
        model.num_reg_tokens = count
    for module in model.modules():
        if isinstance(getattr(module, "num_prefix_tokens", None), int):  # also the attention of rotary models
            module.num_prefix_tokens += count


def _lengthen_transformers(embeddings: Any, num_cls: int, count: int, width: int) -> None:
    """Add registers that are zero to the output of the embeddings, as the models with trained registers do."""
    zeros = next(embeddings.parameters()).new_zeros(1, count, width)
    if getattr(embeddings, "register_tokens", None) is not None:
        embeddings.register_tokens = nn.Parameter(zeros, requires_grad=False)
        return
    embeddings.register_buffer("register_tokens", zeros, persistent=False)
    embeddings.register_forward_hook(partial(_inserted, num_cls))


def _inserted(num_cls: int, embeddings: Any, _args: Any, output: Tensor) -> Tensor:
    registers = embeddings.register_tokens.to(output.dtype).expand(len(output), -1, -1)
    return torch.cat((output[:, :num_cls], registers, output[:, num_cls:]), dim=1)
