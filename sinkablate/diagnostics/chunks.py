"""Chunks of the N x N weights of a block, which fit the cache of a CPU or the memory of a GPU."""

from collections.abc import Iterator
from math import ceil

from torch import Tensor

Chunk = tuple[slice, slice, slice]
"""Images, heads and rows (queries)."""

CPU_BUDGET = 2**22
"""Bytes of one chunk's weights on a CPU. Their sums are computed from the cache, which larger chunks would exceed."""
GPU_BUDGET = 2**29
"""Bytes on other devices, where fewer chunks mean fewer kernels."""
FEWEST_ROWS = 64
"""Rows of a head that stay together if the budget allows, for the speed of the matrix product."""


def chunks(q: Tensor, k: Tensor, budget: int | None = None, *, whole: bool = False) -> Iterator[Chunk]:
    """Yield the parts of a block whose weights take at most `budget` bytes, or a single row or matrix if that is more.

    The rows of a head are divided only if they do not fit.

    Args:
        q: Queries, (B, H, N, d).
        k: Keys, (B, H, M, d).
        budget: Bytes; None chooses by device.
        whole: Keep all rows of a head together even if they do not fit.
    """
    if budget is None:
        budget = CPU_BUDGET if q.device.type == "cpu" else GPU_BUDGET
    batch, num_heads, num_rows, _ = q.shape
    row = k.shape[2] * q.element_size()
    whole = whole or num_rows * row <= budget
    together = num_rows if whole else min(num_rows, FEWEST_ROWS)
    heads = _even(num_heads, budget // (together * row))
    rows = num_rows if whole else _even(num_rows, budget // (heads * row))
    images = _even(batch, budget // (heads * rows * row)) if rows == num_rows else 1
    for i in range(0, batch, images):
        for h in range(0, num_heads, heads):
            for r in range(0, num_rows, rows):
                yield (
                    slice(i, min(i + images, batch)),
                    slice(h, min(h + heads, num_heads)),
                    slice(r, min(r + rows, num_rows)),
                )


def _even(count: int, most: int) -> int:
    """Return the size of parts of at most `most` elements (at least one) that divide a count as evenly as possible."""
    return ceil(count / ceil(count / max(1, min(count, most))))
