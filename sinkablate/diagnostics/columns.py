"""The key columns of a block: which can be dominant, and which are strongest. Axis letters as in `view.py`."""

import torch
from torch import Tensor

from sinkablate.diagnostics.shares import first_largest
from sinkablate.diagnostics.view import BlockView


def candidates(visible: Tensor, num_tokens: int) -> Tensor:
    """Mark the columns that can be dominant, (M,) bool.

    They are those to which at least half as many queries can attend as to the most visible token. A null column does
    not count as a token: every query can attend to it, even with local attention.

    Args:
        visible: Which queries can attend to which columns, (N, M) bool.
        num_tokens: Number of tokens N; later columns are extra ones.
    """
    queries = visible.sum(0)
    return 2 * queries >= queries[:num_tokens].amax()


def candidates_by_type(view: BlockView) -> dict[str, Tensor]:
    """Return the number of columns of each token type that can be dominant, (B,) int64 each."""
    types = view.column_types().expand(len(view.residual), -1)
    among = view.visible is None or candidates(view.visible, view.layout.num_tokens)
    return {kind.label: ((types == kind) & among).sum(-1) for kind in view.kinds}


def column_means(received: Tensor, view: BlockView) -> tuple[Tensor, Tensor]:
    """Return the mean event weight of each column over all queries, and over those that can attend to it.

    The second mean is zero for columns that cannot be dominant.

    Args:
        received: Sum of the event weights of each column, (b, h, M).
        view: The block.
    """
    columns = received / view.layout.num_tokens
    if view.visible is None:
        return columns, columns
    means = received / view.visible.sum(0).clamp_min(1).to(received)
    return columns, means.masked_fill(~candidates(view.visible, view.layout.num_tokens), 0)


def strongest_columns(means: Tensor, count: int) -> Tensor:
    """Return the columns of any type with the largest mean weight, (b, h, c)."""
    return means.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def columns_to_read(received: Tensor, view: BlockView, group: int) -> Tensor:
    """Return the columns whose weights are needed query by query: s, the strongest columns, and registers, (b, h, c).

    Args:
        received: Sum of the event weights of each column, (b, h, M).
        view: The block.
        group: Number of strongest columns.
    """
    means = column_means(received, view)[1]
    registers = torch.arange(view.layout.num_cls, view.layout.num_prefix, device=received.device)
    sink = first_largest(means)[..., None]
    return torch.cat((sink, strongest_columns(means, group), registers.expand(*sink.shape[:-1], -1)), dim=-1)


def at_columns(weights: Tensor, columns: Tensor) -> Tensor:
    """Return the weights of chosen columns, (b, h, N, M), (b, h, c) -> (b, h, N, c)."""
    return weights.gather(-1, columns[..., None, :].expand(*weights.shape[:-1], -1))
