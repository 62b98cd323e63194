"""Histograms of token norms, on bins that are the same for every model, so that they can be overlaid and added."""

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from sinkablate.diagnostics.records import Records

BINS = 64
LOWEST = 0.01
PER_DECADE = 10
EDGES = LOWEST * 10 ** (np.arange(BINS + 1) / PER_DECADE)
"""Edges of the bins: ten per decade, from .01 to 25,119; a bin contains its lower edge."""


def histogram(norms: ArrayLike) -> NDArray[np.int64]:
    """Count norms in the bins, (BINS,); NaN is left out.

    The first bin also counts everything below it, the last one everything above.
    """
    values = np.asarray(norms).ravel()
    values = values[~np.isnan(values)]
    return np.bincount(np.searchsorted(EDGES[1:-1], values, side="right"), minlength=BINS)


def quantile(counts: ArrayLike, q: float) -> float:
    """Return a quantile of the values in a histogram, interpolated geometrically in its bin; NaN without values.

    Args:
        counts: Number of values in each bin, (BINS,).
        q: From 0 to 1.
    """
    counts = np.asarray(counts)
    total = counts.sum()
    if not total:
        return float("nan")
    below = np.cumsum(counts) - counts
    rank = q * (total - 1) + 0.5  # value number k, from 0, occupies the interval from k to k + 1
    index = int(np.flatnonzero((counts > 0) & (below <= rank))[-1])
    within = min(1.0, (rank - below[index]) / counts[index])
    return float(EDGES[index] * (EDGES[index + 1] / EDGES[index]) ** within)


def histogram_table(records: Records, blocks: Sequence[int] | None = None) -> pl.DataFrame:
    """Return the token norms of every block's output by token type, one row per block, type and bin.

    The columns are `block`, `token_type`, `bin`, `low`, `high` and `count`. Tables of parts of the images are combined
    by adding `count`. Token types that do not occur are left out.

    Args:
        records: The measurements.
        blocks: Indices of the measured blocks; None means consecutive from 0.
    """
    n, depth, tokens = records.norms.shape
    types = np.broadcast_to(records.types, (n, tokens))
    numbers = range(depth) if blocks is None else blocks
    kinds = [(kind, types == kind) for kind in records.kinds if (types == kind).any()]
    counts = [
        (block, kind.label, histogram(records.norms[:, index][of_kind]))
        for index, block in enumerate(numbers)
        for kind, of_kind in kinds
    ]
    rows = len(counts)
    return pl.DataFrame(
        {
            "block": np.repeat([block for block, _, _ in counts], BINS),
            "token_type": [name for _, name, _ in counts for _ in range(BINS)],
            "bin": np.tile(np.arange(BINS), rows),
            "low": np.tile(EDGES[:-1], rows),
            "high": np.tile(EDGES[1:], rows),
            "count": np.concatenate([count for _, _, count in counts]),
        }
    )
