"""Which queries can attend to which columns, read from the masks of fused attention calls."""

from typing import Any

import torch
from torch import Tensor

from sinkablate.diagnostics.view import version
from sinkablate.errors import UserError

HIDDEN = -1e30
"""Logit of a column that a query cannot attend to; smaller than any that a model computes, and finite."""


class Visibility:
    """The visible columns of every block, decided with as few waits for a GPU as possible.

    A mask that several blocks share is read once per batch. A block whose additive mask hid nothing on the first batch
    of images, such as a bias by relative position, is assumed to hide nothing later, which is checked at the end of
    each batch.

    Args:
        texts: Whether the batches are texts, whose masks differ from batch to batch.
    """

    def __init__(self, texts: bool = False) -> None:
        self._texts = texts
        self._shared: dict[object, tuple[Tensor | None, Tensor | None]] = {}
        self._open: set[int] = set()
        self._hidden: list[Tensor] = []

    def begin(self) -> None:
        """Forget the masks of the batch before."""
        self._shared.clear()
        self._hidden.clear()

    def of(self, index: int, call: dict[str, Any], family: str) -> Tensor | None:
        """Return which queries can attend to which columns, (N, M) bool; None if all can attend to all.

        Args:
            index: Index of the block.
            call: The arguments of its fused attention call.
            family: Class of its attention, for messages.

        Raises:
            UserError: This differs between texts or heads, as with padding.
        """
        q, k, mask = call["q"], call["k"], call.get("attn_mask")
        size = q.shape[2], k.shape[2]
        if mask is None:
            return self._causal(*size, q.device) if call.get("is_causal") and size[0] > 1 else None
        if index in self._open and mask.is_floating_point():
            self._hidden.append((mask <= HIDDEN).any())
            return None
        key = id(mask), version(mask)
        if key not in self._shared:
            visible = _read(mask, *size, family)
            self._shared[key] = mask, visible  # the mask is kept, so that no other one gets its id
            if visible is None and not self._texts:
                self._open.add(index)
        return self._shared[key][1]

    def _causal(self, n: int, m: int, device: torch.device) -> Tensor:
        """Return the visible columns of causal attention, one tensor for all blocks: they are measured together."""
        key = "causal", n, m
        if key not in self._shared:
            self._shared[key] = None, torch.ones(n, m, dtype=torch.bool, device=device).tril()
        visible = self._shared[key][1]
        assert visible is not None
        return visible

    def end(self) -> None:
        """Check what was assumed about the masks of a batch.

        Raises:
            UserError: A mask that hid nothing on the first batch hides columns now.
        """
        if self._hidden and torch.stack(self._hidden).any():
            raise UserError("the model cannot be measured: it hides columns in some batches only (are images padded?)")


def _read(mask: Tensor, n: int, m: int, family: str) -> Tensor | None:
    """Return what a mask leaves visible, (n, m) bool, or None if it hides nothing."""
    visible: Tensor = mask if mask.dtype is torch.bool else mask > HIDDEN
    if visible.all():
        return None
    one = visible.reshape(-1, *visible.shape[-2:])[0].expand(n, m)
    if not (visible == one).all():
        raise UserError(f"{family} cannot be measured: its mask differs between texts or heads (are the texts padded?)")
    return one
