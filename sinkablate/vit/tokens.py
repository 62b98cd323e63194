"""The types of the tokens in a model's sequence: CLS, registers and patches of an image; words and punctuation."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError
from sinkablate.vit.family import first_of
from sinkablate.vit.inputs import embeddings_of, patch_size_of

_CLS = (("cls_token", "class_embedding"), ("dist_token", "distillation_token"))
"""Names of class-token parameters in timm and transformers; each group stands for one token."""
_REGISTERS = ("reg_token", "register_tokens")


class _Kind(IntEnum):
    @property
    def label(self) -> str:
        """Name of the type in columns and tables, such as `kv_bias`."""
        return self.name.lower()


class TokenType(_Kind):
    """The type of a key column of an attention matrix. The last two are extra columns of some mechanisms."""

    CLS = 0
    REGISTER = 1
    PATCH = 2
    NULL = 3
    KV_BIAS = 4


class TextTokenType(_Kind):
    """The type of a key column when the model reads a text. Codes that `TokenType` also has mean the same."""

    CLS = 0
    """The class token of an encoder, such as [CLS]."""
    NULL = 3
    """The extra column of a model whose heads have a sink logit."""
    BOS = 5
    """The beginning of a text: the first token of a causal model, whether or not it is a special token."""
    SEP = 6
    """The end of a sentence or of the text, such as [SEP]."""
    PUNCTUATION = 7
    """A token without a letter or a digit."""
    WORD = 8
    """Any other token: a word or a part of one."""


def text_tokens(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Split texts of one length into token ids and token types, (B, N) int64 each.

    Args:
        inputs: (B, 2, N), of any dtype: token ids, and values of `TextTokenType`. With ids (B, N) alone, every token is
            a word.
    """
    if inputs.ndim == 2:
        return inputs.long(), torch.full_like(inputs, TextTokenType.WORD, dtype=torch.long)
    ids, types = inputs.long().unbind(1)
    return ids, types


def max_positions(model: nn.Module) -> int:
    """Return the largest number of tokens for which a language model of transformers has positions; 0 if unlimited."""
    positions = int(getattr(getattr(model, "config", None), "max_position_embeddings", None) or 0)
    table: Any = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if positions and getattr(table, "padding_idx", None) is not None:  # RoBERTa counts positions from there
        positions -= table.padding_idx + 1
    return positions


@dataclass(frozen=True)
class TokenLayout:
    """The layout of a sequence: class tokens, then registers, then patches."""

    num_cls: int
    num_registers: int
    num_patches: int

    @property
    def num_prefix(self) -> int:
        """Number of tokens before the first patch."""
        return self.num_cls + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Length N of the sequence."""
        return self.num_prefix + self.num_patches

    @property
    def counts(self) -> dict[str, int]:
        """Number of tokens of each type, by its label."""
        numbers = (self.num_cls, self.num_registers, self.num_patches)
        return {kind.label: number for kind, number in zip(TokenType, numbers, strict=False)}

    def types(self, extra: tuple[TokenType, ...] = ()) -> Tensor:
        """Return the token type of each key column, (N + len(extra),) int64."""
        counts = (
            (TokenType.CLS, self.num_cls),
            (TokenType.REGISTER, self.num_registers),
            (TokenType.PATCH, self.num_patches),
        )
        return torch.tensor([int(t) for t, n in counts for _ in range(n)] + [int(t) for t in extra])


def token_layout(model: nn.Module, num_tokens: int, image_size: Sequence[int]) -> TokenLayout:
    """Return the layout of a model's sequence.

    Args:
        model: A vision transformer of timm or of Hugging Face's transformers.
        num_tokens: Length N of the sequence in its blocks.
        image_size: Height and width of the images in pixels.

    Raises:
        UserError: Some prefix tokens of the model are neither class tokens nor registers.
    """
    prefix_counts = _prefix_of(embeddings_of(model))
    patches = num_tokens - sum(prefix_counts)
    prefix = getattr(model, "num_prefix_tokens", None)
    if hasattr(model, "embeddings"):  # transformers' models do not store it, but every other token is a patch
        patch, masks = patch_size_of(model), first_of(model, ("config.mask_ratio",))  # ViTMAE drops patches at random
        filled = patches == prod(size // patch for size in image_size)
        prefix = sum(prefix_counts) if filled and not masks else None
    if prefix != sum(prefix_counts):
        raise UserError(
            f"{type(model).__name__} cannot be measured, because the positions of its tokens are unknown: it has "
            f"{prefix or 'an unknown number of'} prefix tokens, but {prefix_counts[0]} class tokens and "
            f"{prefix_counts[1]} registers"
        )
    return TokenLayout(*prefix_counts, patches)


def class_token_count(model: nn.Module) -> int:
    """Return the number of class tokens of a vision transformer of timm or of Hugging Face's transformers."""
    return _prefix_of(embeddings_of(model))[0]


def register_count(model: nn.Module) -> int:
    """Return the number of registers of a vision transformer of timm or of Hugging Face's transformers."""
    return _prefix_of(embeddings_of(model))[1]


def _prefix_of(owner: nn.Module) -> tuple[int, int]:
    """Count class tokens, including one for distillation, and registers from a module's parameters."""
    num_cls = sum(any(getattr(owner, name, None) is not None for name in names) for names in _CLS)
    registers = next((token for name in _REGISTERS if (token := getattr(owner, name, None)) is not None), None)
    return num_cls, 0 if registers is None else registers.shape[1]
