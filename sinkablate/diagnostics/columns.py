"""The key columns of a block: which can be dominant, and which are strongest. Axis letters as in `view.py`."""

from torch import Tensor

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
    columns = received / view.q.shape[2]
    if view.visible is None:
        return columns, columns
    means = received / view.visible.sum(0).clamp_min(1).to(received)
    return columns, means.masked_fill(~candidates(view.visible, view.layout.num_tokens), 0)


def strongest_columns(means: Tensor, count: int) -> Tensor:
    """Return the columns of any type with the largest mean weight, (b, h, c)."""
    return means.sort(dim=-1, descending=True, stable=True).indices[..., :count]
