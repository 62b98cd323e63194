"""Where CLS, registers and patches stand in a model's sequence: the one place that knows it."""

from dataclasses import dataclass
from enum import IntEnum
from math import isqrt

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError

_CLS = (("cls_token", "class_embedding"), ("dist_token", "distillation_token"))
"""Parameters, by timm's and by transformers' names; each group is one token."""
_REGISTERS = ("reg_token", "register_tokens")


class TokenType(IntEnum):
    """What a key column of an attention matrix is. The last two exist only as extra columns of some mechanisms."""

    CLS = 0
    REGISTER = 1
    PATCH = 2
    NULL = 3
    KV_BIAS = 4

    @property
    def label(self) -> str:
        """Name in column names and tables, such as `kv_bias`."""
        return self.name.lower()


@dataclass(frozen=True)
class TokenLayout:
    """A sequence of `num_cls` class tokens, then registers, then patches."""

    num_cls: int
    num_registers: int
    num_patches: int

    @property
    def num_prefix(self) -> int:
        """Tokens before the first patch."""
        return self.num_cls + self.num_registers

    @property
    def num_tokens(self) -> int:
        """Length N of the sequence."""
        return self.num_prefix + self.num_patches

    def types(self, extra: tuple[TokenType, ...] = ()) -> Tensor:
        """Token type of each column, (N + len(extra),) int64."""
        counts = (
            (TokenType.CLS, self.num_cls),
            (TokenType.REGISTER, self.num_registers),
            (TokenType.PATCH, self.num_patches),
        )
        return torch.tensor([int(t) for t, n in counts for _ in range(n)] + [int(t) for t in extra])


def token_layout(model: nn.Module, num_tokens: int) -> TokenLayout:
    """Layout of a model's sequence.

    Args:
        model: A vision transformer of timm or of Hugging Face's transformers.
        num_tokens: Length N of the sequence its blocks see.

    Raises:
        UserError: The model's prefix tokens are not all class tokens and registers.
    """
    embeddings = getattr(model, "embeddings", None)
    found = _prefix_of(model if embeddings is None else embeddings)
    patches = num_tokens - sum(found)
    if embeddings is None:
        prefix = getattr(model, "num_prefix_tokens", None)
    else:  # transformers' models do not say, but the patches of a square image are a square number
        masks = getattr(getattr(model, "config", None), "mask_ratio", 0)  # ViTMAE drops patches at random
        prefix = sum(found) if isqrt(patches) ** 2 == patches and not masks else None
    if prefix != sum(found):
        raise UserError(
            f"{type(model).__name__} does not say where its tokens are: {prefix or 'unknown'} prefix "
            f"tokens, but {found[0]} class tokens and {found[1]} registers"
        )
    return TokenLayout(*found, patches)


def _prefix_of(owner: nn.Module) -> tuple[int, int]:
    """Numbers of class tokens (one for distillation among them) and of registers, from a module's parameters."""
    num_cls = sum(any(getattr(owner, name, None) is not None for name in names) for names in _CLS)
    registers = next((token for name in _REGISTERS if (token := getattr(owner, name, None)) is not None), None)
    return num_cls, 0 if registers is None else registers.shape[1]
