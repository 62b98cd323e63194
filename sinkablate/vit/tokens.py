"""Where CLS, registers and patches stand in a model's sequence: the one place that knows it."""

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError


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
        counts = ((TokenType.CLS, self.num_cls), (TokenType.REGISTER, self.num_registers),
                  (TokenType.PATCH, self.num_patches))
        return torch.tensor([int(t) for t, n in counts for _ in range(n)] + [int(t) for t in extra])


def token_layout(model: nn.Module, num_tokens: int) -> TokenLayout:
    """Layout of a timm model's sequence.

    Args:
        model: A timm vision transformer.
        num_tokens: Length N of the sequence its blocks see.

    Raises:
        UserError: The model's prefix tokens are not all class tokens and registers.
    """
    tokens = {name: getattr(model, name, None) for name in ("cls_token", "dist_token", "reg_token")}
    num_cls = sum(tokens[name] is not None for name in ("cls_token", "dist_token"))
    num_registers = 0 if tokens["reg_token"] is None else tokens["reg_token"].shape[1]
    prefix = getattr(model, "num_prefix_tokens", None)
    if prefix != num_cls + num_registers:
        raise UserError(f"{type(model).__name__} does not say where its tokens are: {prefix} prefix tokens, "
                        f"but {num_cls} class tokens and {num_registers} registers")
    return TokenLayout(num_cls, num_registers, num_tokens - prefix)
