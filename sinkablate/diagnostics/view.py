"""The attention of one block on one batch, as the tap passes it to the measurements.

Axis letters, here and in the entire package:
    B images, H heads, N tokens (queries), M key columns (N, or N + 1 with a null or k/v-bias column last),
    d head width, D model width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.vit.tokens import TextTokenType, TokenLayout, TokenType

Weigh = Callable[[Tensor, Tensor, slice, slice], Tensor]


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
    weigh: Weigh
    """(q rows, k rows, image slice, head slice) -> weights (b, h, N, M): the mechanism's own formula."""
    out_map: Tensor
    """W = diag(gamma) W_O^h, the head's map into the residual stream with LayerScale folded in, (H, D, d)."""
    residual: Tensor
    """The block's input (B, N, D)."""
    logits: Weigh | None = None
    """As `weigh`, but returns finite logits S whose softmax is the weights; used instead of `weigh` if given."""
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

    def weights(self, images: slice = slice(None), heads: slice = slice(None)) -> Tensor:
        """Compute the attention weights A (b, h, N, M) of some images and heads; signed, not renormalized."""
        return self.weights_and_logits(images, heads)[0]

    def weights_and_logits(self, images: slice, heads: slice) -> tuple[Tensor, Tensor | None]:
        """Compute A and the logits S with A = softmax(S); None instead of S if there are no such logits."""
        rows = (self.q[images, heads], self.k[images, heads], images, heads)
        if self.logits is None:
            return self.weigh(*rows), None
        s = self.logits(*rows)
        return s.softmax(dim=-1), s

    def column_types(self, images: slice = slice(None)) -> Tensor:
        """Return the token type of each of the M columns, (M,); for texts (b, M), because each has its own."""
        if self.token_types is None:
            return self.layout.types(self.extra).to(self.q.device)
        types = self.token_types[images]
        extra = types.new_tensor([int(kind) for kind in self.extra])
        return torch.cat((types, extra.expand(len(types), -1)), dim=1)

    @property
    def kinds(self) -> type[TokenType] | type[TextTokenType]:
        """The token types that can occur."""
        return TokenType if self.token_types is None else TextTokenType

    def column_kinds(self) -> tuple[TokenType | TextTokenType, ...]:
        """Return the token type of each of the M columns of the first image or text, by name."""
        types = self.column_types()
        return tuple(self.kinds(code) for code in (types if types.ndim == 1 else types[0]).tolist())


def chunks(view: BlockView, budget: int | None = None) -> list[tuple[slice, slice]]:
    """Return slices of images and heads whose weight matrices take at most `budget` bytes, at least one matrix each.

    The default is 16 MiB on a CPU, so that they stay in the cache, and 128 MiB elsewhere.
    """
    if budget is None:
        budget = 2**24 if view.q.device.type == "cpu" else 2**27
    batch, num_heads, num_queries, _ = view.q.shape
    matrix = num_queries * view.k.shape[2] * view.q.element_size()
    head_step = max(1, min(num_heads, budget // matrix))
    image_step = max(1, min(batch, budget // (matrix * head_step)))
    return [
        (slice(i, min(i + image_step, batch)), slice(h, min(h + head_step, num_heads)))
        for i in range(0, batch, image_step)
        for h in range(0, num_heads, head_step)
    ]


def head_factor(out_map: Tensor) -> Tensor:
    """Return R (H, d, d) of the QR factors of W, so that ||W x|| = ||R x|| and O W^T, O R^T share singular values.

    Computed in float64, because every norm and rank of the head's update depends on R.
    """
    factor: Tensor = torch.linalg.qr(out_map.double(), mode="r").R.to(out_map.dtype)
    return factor
