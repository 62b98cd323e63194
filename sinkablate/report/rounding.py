"""Round the numbers of the page of a report."""

import numpy as np
from numpy.typing import ArrayLike

DIGITS = 4
"""Significant digits of the page's numbers."""


def rounded(values: ArrayLike, digits: int = DIGITS) -> list[float | None]:
    """Round to a number of significant digits; None replaces NaN and infinity."""
    x = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(x) & (x != 0)
    power = digits - 1 - np.floor(np.log10(np.abs(np.where(finite, x, 1)))).astype(int)
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    short = np.rint(np.where(finite, x, 0) * up / down) / up * down
    return [value if ok else None for value, ok in zip(short.tolist(), np.isfinite(x).tolist(), strict=True)]
