"""The attention of one block on one batch, as the tap passes it to the measurements.

Axis letters, here and in the entire package:
    B images, H heads, N tokens (queries), M key columns (N, or N + 1 with a null or k/v-bias column last),
    d head width, D model width.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from sinkablate.vit.tokens import TextTokenType, TokenLayout, TokenType

Weigh = Callable[[Tensor, Tensor, slice, slice], Tensor]
ALL = slice(None)


@dataclass(frozen=True)
class Logits:
    """Logits S = scale q·k + bias whose softmax is the attention weights.

    The bias of a column that a query cannot attend to is very negative but finite, so that its weight is zero and its
    logit a number.
    """

    scale: float
    bias: Tensor | None = None
    """Additive mask, relative positions or offset of an extra column, broadcastable to (B, H, N, M)."""

    def __call__(self, q: Tensor, k: Tensor, images: slice = ALL, heads: slice = ALL, rows: slice = ALL) -> Tensor:
        """Return S (b, h, n, M) of some queries (b, h, n, d) and keys (b, h, M, d).

        Args:
            q: The queries.
            k: The keys of the same images and heads.
            images: Which images of the block these are.
            heads: Which heads of the block these are.
            rows: Which queries of the block these are.
        """
        s = (q * self.scale) @ k.mT
        return s if self.bias is None else s.add_(_part(self.bias, images, heads, rows))

    def at(self, q: Tensor, k: Tensor, columns: Tensor) -> Tensor:
        """Return S (B, H, N, c) at chosen columns of every head.

        Args:
            q: All queries of the block, (B, H, N, d).
            k: All keys, (B, H, M, d).
            columns: Indices, (B, H, c) int64.
        """
        keys = k.gather(-2, columns[..., None].expand(*columns.shape, k.shape[-1]))
        s = (q * self.scale) @ keys.mT
        if self.bias is None:
            return s
        bias = self.bias.expand(*q.shape[:-1], k.shape[-2])
        return s.add_(bias.gather(-1, columns[..., None, :].expand_as(s)))


def _part(bias: Tensor, *slices: slice) -> Tensor:
    """Return the part of a tensor broadcastable to (B, H, N, M) that belongs to images, heads and rows."""
    bias = bias[(None,) * (4 - bias.ndim)]
    return bias[tuple(part if size > 1 else ALL for part, size in zip(slices, bias.shape, strict=False))]


@dataclass(frozen=True)
class BlockView:
    """One block on one batch, in fp32 and detached. No tensor is (B, H, N, M): weights are computed on demand."""

    index: int
    """Block number, from 0."""
    layout: TokenLayout
    """Where CLS, registers and patches are."""
    extra: tuple[TokenType, ...]
    """Types of the columns beyond the N tokens: (), (NULL,) or (KV_BIAS,)."""
    q: Tensor
    """Queries (B, H, N, d)."""
    k: Tensor
    """Keys (B, H, M, d)."""
    v: Tensor
    """Values the weighted sum uses (B, H, M, d); after the gate where the gate is at the values (G2)."""
    out_map: Tensor
    """W = diag(gamma) W_O^h, the head's map into the residual stream with LayerScale folded in, (H, D, d)."""
    residual: Tensor
    """The block's input (B, N, D)."""
    logits: Logits | None = None
    """Logits whose softmax is the weights, if the mechanism has them."""
    weigh: Weigh | None = None
    """For other mechanisms: (q rows, k rows, image slice, head slice) -> weights (b, h, N, M), by their own formula."""
    output: Tensor | None = None
    """A v as the model itself computed it, before an output gate, (B, H, N, d); None: computed from the weights."""
    update: Tensor | None = None
    """Output of the attention module before LayerScale, (B, N, D); None for a view that does not come from a model."""
    gate: Tensor | None = None
    """Openness in (0, 1): (B, H, N, 1) headwise or (B, H, N, d) elementwise; of queries (G1) or of values (G2)."""
    gates_values: bool = False
    """True for G2: `v` already includes the gate."""
    raw_v: Tensor | None = None
    """G2 only: the values before the gate, (B, H, M, d)."""
    rows_sum_to_one: bool = True
    """False for relu, pointwise, polynomial and sigmoid, whose weights are normalized by sum |A| for events."""
    rows_at_most_one: bool = True
    """False if a row may exceed one, so 1 - row mass is not the mass of a null sink."""
    takes_null: bool = False
    """True for zero and learned sinks and clipping: part of a row may go to no token."""
    visible: Tensor | None = None
    """Which queries can attend to which columns, (N, M) bool, with causal or local attention; None: all to all."""
    token_types: Tensor | None = None
    """Texts only: `TextTokenType` of every token, (B, N) int64. The types of an image's tokens are in the layout."""

    def weights(self, images: slice = ALL, heads: slice = ALL) -> Tensor:
        """Compute the attention weights A (b, h, N, M) of some images and heads; signed, not renormalized."""
        rows = (self.q[images, heads], self.k[images, heads], images, heads)
        if self.logits is not None:
            return self.logits(*rows).softmax(dim=-1)
        assert self.weigh is not None
        return self.weigh(*rows)

    def column_types(self, images: slice = ALL) -> Tensor:
        """Return the token type of each of the M columns, (M,); for texts (b, M), because each has its own."""
        if self.token_types is None:
            return _column_types(self.layout, self.extra, self.residual.device)
        types = self.token_types[images]
        extra = types.new_tensor([int(kind) for kind in self.extra])
        return torch.cat((types, extra.expand(len(types), -1)), dim=1)

    def without_scores(self) -> "BlockView":
        """Return the view without queries and keys, whose memory is then free, once its weights are reduced."""
        return replace(
            self, v=self.v.contiguous(), q=self.q.new_empty(0), k=self.k.new_empty(0), logits=None, weigh=None
        )

    @property
    def kinds(self) -> type[TokenType] | type[TextTokenType]:
        """The token types that can occur."""
        return TokenType if self.token_types is None else TextTokenType

    def column_kinds(self) -> tuple[TokenType | TextTokenType, ...]:
        """Return the token type of each of the M columns of the first image or text, by name."""
        types = self.column_types()
        return tuple(self.kinds(code) for code in (types if types.ndim == 1 else types[0]).tolist())


def version(tensor: Tensor) -> int:
    """Return how often a tensor has been modified in place; zero in inference mode, which does not count it."""
    return 0 if tensor.is_inference() else tensor._version


@cache
def _column_types(layout: TokenLayout, extra: tuple[TokenType, ...], device: torch.device) -> Tensor:
    """Return the token types of a layout on a device; cached, because copying them makes the host wait for a GPU."""
    return layout.types(extra).to(device)
