"""The part of a head's output map that its norms and ranks depend on."""

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ROWS = 256
"""Rows of a matrix up to which cuBLAS factors the matrices of a batch together instead of one after the other."""


def head_factor(out_map: Tensor) -> Tensor:
    """Return R (H, d, d) of the QR factors of W, so that ||W x|| = ||R x|| and O W^T, O R^T share singular values.

    Computed in float64, because every norm and rank of the head's update depends on R. Tall matrices are factored in
    parts: the R of the stacked R of parts of the rows is that of all rows, up to signs (TSQR, arXiv 0808.2664). The
    diagonal of R is made positive, so that R is the same on all ranks and devices, whose payloads R v are added up.

    Args:
        out_map: W of any number of heads, (H, D, d).
    """
    rows = out_map.double()
    width = rows.shape[-1]
    while rows.shape[1] > MOST_ROWS and (parts := ceil(rows.shape[1] / MOST_ROWS)) * width < rows.shape[1]:
        size = ceil(rows.shape[1] / parts)
        padded = F.pad(rows, (0, 0, 0, parts * size - rows.shape[1]))
        rows = _r(padded.unflatten(1, (parts, size))).flatten(1, 2)
    factor = _r(rows)
    signs = torch.where(factor.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return (factor * signs.to(factor.dtype)[..., None]).to(out_map.dtype)


def _r(rows: Tensor) -> Tensor:
    """Return R of the QR factors of matrices (..., n, d), (..., min(n, d), d)."""
    factor: Tensor = torch.linalg.qr(rows, mode="r").R
    return factor
