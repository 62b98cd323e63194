"""The edits, as pure functions of one block's view: each is a change of what one head writes.

Attention stays fixed, except in `redirect`. With A the head's weights, g its output gate and s a column, replacing v_s
by v' changes row i of the head's output by A_is g_i * (v' - v_s). Axis letters as in `view.py`; one image at a time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sinkablate.diagnostics.view import BlockView
from sinkablate.vit.tokens import TokenType

SINK_EDITS = ("zero_value", "mean_value", "donor_value", "rotated_value", "ordinary_value", "redirect")
"""What is done to a head's dominant column."""
CONTROLS = ("random_value", "random_head")
KNOCK_OUTS = ("register", "pathway")
"""Each stands for three edits: to zero, to the mean over other images, to another image's."""
EDITS = (*SINK_EDITS, *CONTROLS, *KNOCK_OUTS)
NEED_OTHERS = ("mean_value", "donor_value", "ordinary_value", "register", "pathway")
"""Edits that take something from other images."""
REPLACEMENTS = ("zero", "mean", "donor")


@dataclass(frozen=True)
class Edit:
    """One change of one block on one image."""

    name: str
    head: int
    """Whose sink is tested; -1 for a pathway."""
    changed_head: int
    """Whose output changes; another head in `random_head`."""
    change: Tensor
    """Of that head's output, behind an output gate, (N, d); of the global state g, (K,), for a pathway."""
    column: int | None = None
    """The column whose value is replaced; None where no single one is."""
    value: Tensor | None = None
    """What replaces it, (d,)."""

    @property
    def of_pathway(self) -> bool:
        """True where the change is that of a global state."""
        return self.head < 0


def replaced_value(name: str, own: Tensor, others: Mapping[str, Tensor], direction: Tensor, out_map: Tensor) -> Tensor:
    """The value (d,) that an edit puts in the place of v_s.

    A rotated value is of the size of v_s where it counts, in what is written: ||W v'|| = ||W v_s||. Its norm before W
    says little: a NOP sink may have a large value that W maps to nothing.

    Args:
        name: `zero_value`, `mean_value`, `donor_value`, `rotated_value` or `ordinary_value`.
        own: v_s (d,).
        others: `mean`, `donor` and `ordinary`, from other images, (d,) each.
        direction: A random vector (d,).
        out_map: W of the head (D, d).
    """
    match name:
        case "zero_value":
            return torch.zeros_like(own)
        case "rotated_value":
            turned = direction.to(own)
            return turned * ((out_map @ own).norm() / (out_map @ turned).norm())
    return others[name.removesuffix("_value")].to(own)


def change_of_value(view: BlockView, head: int, weights: Tensor, column: int, value: Tensor) -> Tensor:
    """What replacing one value changes in a head's output, behind its output gate: A_is g_i * (v' - v_s), (N, d).

    A value gate (G2) is part of the values: v_s and v' are those behind it.

    Args:
        view: The block on one image.
        head: Which head.
        weights: A of that head (N, M).
        column: s.
        value: v' (d,).
    """
    return _gated(view, head, weights[:, column, None] * (value - view.v[0, head, column]))


def change_of_redirect(view: BlockView, head: int, weights: Tensor, column: int) -> Tensor:
    """What taking a column away changes in a head's output, behind its output gate, (N, d)."""
    return _gated(view, head, (redirected(view, head, weights, column) - weights) @ view.v[0, head])


def redirected(view: BlockView, head: int, weights: Tensor, column: int) -> Tensor:
    """A without column s, its rows renormalized, (N, M); what remains is never divided by 1 - A_is.

    A softmax over the remaining logits. Where a zero or learned sink takes part of the row, tokens keep their share of
    it; without that sink, if it is the column that goes, they share all. Scores that are no softmax keep the row's
    sum of |A|; where nothing remains it is spread evenly.

    Args:
        view: The block on one image.
        head: Which head.
        weights: A of that head (N, M).
        column: s.
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
        return logits.softmax(-1)
    share = weights[:, :num_tokens].sum(-1, keepdim=True)
    return torch.cat((logits[:, :num_tokens].softmax(-1) * share, weights[:, num_tokens:]), dim=-1)


def head_weights(view: BlockView, head: int) -> Tensor:
    """A of one head (N, M)."""
    return view.weights(slice(0, 1), slice(head, head + 1))[0, 0]


def head_output(view: BlockView, head: int, weights: Tensor) -> Tensor:
    """What a head hands to W_O, behind its output gate, (N, d)."""
    return _gated(view, head, weights @ view.v[0, head])


def _gated(view: BlockView, head: int, rows: Tensor) -> Tensor:
    """Rows (N, d) behind an output gate (G1)."""
    return rows if view.gate is None or view.gates_values else view.gate[0, head] * rows


def _at(column: int, like: Tensor) -> Tensor:
    return torch.tensor([column], device=like.device)
