"""The patches of an image: how they are arranged, where they are, and how much their pixels vary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # a report arranges patches without loading PyTorch
    from torch import Tensor


def patch_grid(patches: int, height: int = 1, width: int = 1) -> tuple[int, int]:
    """Return rows and columns of the patches of an image (height, width); one row if they do not fill a rectangle."""
    rows = round((patches * height / width) ** 0.5)
    return (
        (rows, patches // rows)
        if rows and patches % rows == 0 and rows * width * rows == patches * height
        else (1, patches)
    )


def patch_variance(images: Tensor, patches: int) -> Tensor | None:
    """Return the variance of the pixels of every patch, the mean over channels of the variance over pixels.

    Args:
        images: Normalized images (B, C, H, W).
        patches: Number P of patches per image. Pixels on the right and below that do not fill a patch are left out, as
            they are by a model's patch embedding.

    Returns:
        (B, rows, columns), rows x columns = P; None if the input does not consist of images, or if P square patches do
        not fill a rectangle of the images' shape.
    """
    if images.ndim != 4:
        return None
    height, width = images.shape[-2:]
    rows, columns = patch_grid(patches, height, width)
    if rows * width != columns * height:
        return None
    tall, wide = height // rows, width // columns
    split = images[..., : rows * tall, : columns * wide].unflatten(-1, (columns, wide)).unflatten(-3, (rows, tall))
    variance: Tensor = split.float().var(dim=(-3, -1), correction=0).mean(1)
    return variance


def border(rows: int, columns: int) -> NDArray[np.bool_]:
    """Mark the patches in the first and last row and column, (rows, columns)."""
    marks = np.ones((rows, columns), bool)
    marks[1:-1, 1:-1] = False
    return marks


def corners(rows: int, columns: int) -> NDArray[np.bool_]:
    """Mark the patches in the four corners, (rows, columns)."""
    marks = np.zeros((rows, columns), bool)
    marks[np.ix_([0, -1], [0, -1])] = True
    return marks


def low_texture(variance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the patches whose variance is at most the lower quartile of the patches of their image.

    Ties count, so more than a quarter is marked where many patches have the same pixels, such as a black ground.

    Args:
        variance: (n, P).
    """
    limits = np.quantile(variance, 0.25, axis=-1, keepdims=True, method="inverted_cdf")
    marks: NDArray[np.bool_] = variance <= limits
    return marks
