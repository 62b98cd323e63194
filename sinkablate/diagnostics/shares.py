"""Ratios, shares and maxima that are the same on every device and undefined, NaN, where they have to be."""

from math import nan

import torch
from torch import Tensor

TIE = 1e-5
"""Columns within this relative distance of the strongest count as tied, so that rounding does not choose the sink."""


def divide(x: Tensor, y: Tensor) -> Tensor:
    """Return x / y, and NaN where y is not positive."""
    return (x / y).masked_fill(y <= 0, nan)


def share(hit: Tensor, of: Tensor, among: Tensor | None = None) -> Tensor:
    """Return the share of hits (..., N) bool along the last axis, (...); NaN if the compared numbers `of` have a NaN.

    Computed in float64, so that 9 of 10 equals a threshold of 0.9 on every device. The share is among all, or among
    those that are marked in `among` (..., N) bool.
    """
    if among is None:
        of_all = hit.mean(-1, dtype=torch.float64)
    else:
        of_all = (hit & among).sum(-1, dtype=torch.float64) / among.sum(-1, dtype=torch.float64)
    return of_all.to(of.dtype).masked_fill(of.isnan().any(-1), nan)


def first_largest(x: Tensor) -> Tensor:
    """Return the lowest index among the largest entries of the last axis (see `TIE`), (...) int64, for x >= 0."""
    tied = x >= x.amax(-1, keepdim=True) * (1 - TIE)
    return tied.byte().argmax(-1)  # argmax returns the first of several


def host_can_read(x: Tensor) -> bool:
    """Return whether the host can read a tensor without waiting for a device, so it can decide to compute less."""
    return x.device.type == "cpu"
