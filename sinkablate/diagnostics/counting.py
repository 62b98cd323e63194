"""Which blocks count: everything that sums or averages over blocks uses these functions.

Block 0 reads raw patch embeddings, so its events are counted separately. Where it is the only measured block, as in a
model of one block, it is the block that counts.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

DEFAULT_BLOCKS = "blocks ≥ 1"
"""Name of the blocks that count in a model of several blocks."""


def counted(blocks: Sequence[int]) -> NDArray[np.bool_]:
    """Mark the blocks that count, (L,): all but block 0, or block 0 if there is no other.

    Args:
        blocks: Indices of the measured blocks.
    """
    numbers = np.asarray(blocks)
    later: NDArray[np.bool_] = numbers != 0
    return later if later.any() else np.ones_like(later)


def counted_rows(table: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of the blocks that count from a table with the column `block`."""
    return table.filter(pl.Series(counted(table["block"].to_list()), dtype=pl.Boolean))


def counted_name(blocks: Sequence[int]) -> str:
    """Name the blocks that count, for titles and tables: `blocks ≥ 1` or `block 0`."""
    return DEFAULT_BLOCKS if any(block != 0 for block in blocks) else "block 0"
