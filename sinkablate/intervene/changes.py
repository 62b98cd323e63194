"""What replacing a value or a column of attention changes in a head's output, as pure functions of one block's view.

Attention stays fixed, except in `redirected`. With A the head's attention weights, g its output gate and s a column,
replacing v_s with v' changes row i of the head's output by A_is g_i * (v' - v_s). Axis letters as in `view.py`; the
batch is one image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenType


@dataclass(frozen=True)
class Change:
    """What one edit changes in one block on one image."""

    edit: str
    """Name of the edit."""
    head: int
    """The head whose sink is tested; -1 for a global pathway."""
    changed_head: int
    """The head whose output changes; another one in `random_head`."""
    change: Tensor
    """Added to that head's output after its output gate, (N, d); for a pathway, added to the global state g, (K,)."""
    column: int | None = None
    """The column whose value is replaced; None if the edit does not replace a single value."""
    value: Tensor | None = None
    """The new value of that column, (d,)."""

    @property
    def of_pathway(self) -> bool:
        """True if the edit changes the state of a global pathway."""
        return self.head < 0


def change_of_value(view: BlockView, head: int, weights: Tensor, column: int, value: Tensor) -> Tensor:
    """Return the change of a head's output when one value is replaced: A_is g_i * (v' - v_s), (N, d).

    A value gate (G2) is part of the values: v_s and v' are taken after it.

    Args:
        view: The block on one image.
        head: Index of the head.
        weights: Attention weights A of the head, (N, M).
        column: Index s of the column.
        value: The new value v', (d,).
    """
    return _gated(view, head, weights[:, column, None] * (value - view.v[0, head, column]))


def change_of_redirect(view: BlockView, head: int, weights: Tensor, column: int) -> Tensor:
    """Return the change of a head's output, after its output gate, when a column is removed, (N, d)."""
    return _gated(view, head, (redirected(view, head, weights, column) - weights) @ view.v[0, head])


def redirected(view: BlockView, head: int, weights: Tensor, column: int) -> Tensor:
    """Return attention weights without column s, with the rows renormalized, (N, M).

    The softmax is taken over the remaining logits; dividing by 1 - A_is would fail where it rounds to zero. Zero and
    learned sinks keep their share of each row, unless s is the sink itself: then the tokens share the whole row. Scores
    without a softmax keep sum_j |A_ij| of each row; a row with nothing left is spread evenly. With causal attention, a
    query that can attend to no other token keeps its row.

    Args:
        view: The block on one image.
        head: Index of the head.
        weights: Attention weights A of the head, (N, M).
        column: Index s of the column to remove.
    """
    if view.logits is None:
        rest = weights.index_fill(-1, _at(column, weights), 0)
        left, total = rest.abs().sum(-1, keepdim=True), weights.abs().sum(-1, keepdim=True)
        even = torch.ones_like(weights).index_fill(-1, _at(column, weights), 0) / max(1, weights.shape[-1] - 1)
        return torch.where(left > 0, rest / left.clamp_min(torch.finfo(left.dtype).tiny), even) * total
    one = slice(head, head + 1)
    logits = view.logits(view.q[:, one], view.k[:, one], slice(0, 1), one)[0, 0]
    logits = logits.index_fill(-1, _at(column, logits), -torch.inf)
    num_tokens = view.layout.num_tokens
    if view.extra != (TokenType.NULL,) or column >= num_tokens:
        rows = logits.softmax(-1)
    else:
        share = weights[:, :num_tokens].sum(-1, keepdim=True)
        rows = torch.cat((logits[:, :num_tokens].softmax(-1) * share, weights[:, num_tokens:]), dim=-1)
    if view.visible is None:
        return rows
    others = view.visible.clone()
    others[:, column] = False
    return torch.where(others[:, :num_tokens].any(-1, keepdim=True), rows, weights)


def head_weights(view: BlockView, head: int) -> Tensor:
    """Return the attention weights A of one head, (N, M)."""
    return view.weights(slice(0, 1), slice(head, head + 1))[0, 0]


def head_output(view: BlockView, head: int, weights: Tensor) -> Tensor:
    """Return what a head passes to the output projection, after its output gate, (N, d)."""
    return _gated(view, head, weights @ view.v[0, head])


def _gated(view: BlockView, head: int, rows: Tensor) -> Tensor:
    """Apply the output gate (G1) of a head, if it has one, to rows (N, d)."""
    return rows if view.gate is None or view.gates_values else view.gate[0, head] * rows


def _at(column: int, like: Tensor) -> Tensor:
    return torch.tensor([column], device=like.device)
