"""LOST: find one object of an image from the similarities of its patches (arXiv 2109.14279), and CorLoc.

Axis letters: P patches, D feature width.
"""

from typing import NamedTuple

import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou

EXPANSION = 100
"""Number k of patches of lowest degree that can join the seed, as in the paper."""
LOCALIZED = 0.5
"""A box is correct if its intersection over union with a ground-truth box is at least this."""


class FoundObject(NamedTuple):
    """What LOST finds in an image."""

    seed: int
    """Index of the seed patch."""
    mask: Tensor
    """The patches of the object, (rows, columns) bool: connected, and with the seed among them."""
    box: Tensor
    """Left, top, right and bottom edge of these patches, in units of patches from the top left corner, (4,) float64."""


def degrees(similarity: Tensor) -> Tensor:
    """Return the number of other patches to which each patch is positively similar, (P, P) -> (P,) int64."""
    return (similarity > 0).sum(1) - (similarity.diagonal() > 0).long()


def seed_and_similar(similarity: Tensor, expansion: int = EXPANSION) -> tuple[int, Tensor]:
    """Return the seed p* and the patches S of the seed expansion.

    The seed is the patch of lowest degree. S holds the seed and those of the `expansion` patches of lowest degree that
    are positively similar to it. Of patches of the same degree, the first ones count.

    Args:
        similarity: Inner products of the patch features, (P, P).
        expansion: k.

    Returns:
        The index of the seed, and the indices S, int64.
    """
    order = degrees(similarity).argsort(stable=True)
    seed = int(order[0])
    candidates = order[:expansion]
    joined = (similarity[seed, candidates] > 0) | (candidates == seed)
    return seed, candidates[joined]


def find_object(features: Tensor, grid: tuple[int, int], expansion: int = EXPANSION) -> FoundObject:
    """Find the object of one image.

    The object consists of the patches whose summed similarity to S (`seed_and_similar`) is positive and that are
    connected to the seed by their edges. Inner products are computed in float64, so that their signs do not depend on
    the device.

    Args:
        features: Features of the patches, row by row, (P, D).
        grid: Number of rows and columns of patches.
        expansion: k.
    """
    rows = features.double()
    similarity = rows @ rows.T
    seed, similar = seed_and_similar(similarity, expansion)
    positive = similarity[similar].sum(0) > 0
    positive[seed] = True  # a seed whose features are all zero is similar to no patch, not even to itself
    labels, _ = ndimage.label(positive.view(grid).cpu().numpy())
    mask = torch.from_numpy(labels == labels[divmod(seed, grid[1])])
    return FoundObject(seed, mask, box_of(mask))


def box_of(mask: Tensor) -> Tensor:
    """Return left, top, right and bottom edge of the true entries of a mask (rows, columns), (4,) float64."""
    down, across = mask.nonzero().unbind(1)
    edges = (across.min(), down.min(), across.max() + 1, down.max() + 1)
    return torch.stack(edges).double()


def to_pixels(box: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Scale a box from units of patches to pixels of the image whose area the grid covers.

    Args:
        box: Left, top, right, bottom, (4,).
        grid: Number of rows and columns of patches.
        size: Height and width of the image.
    """
    down, across = size[0] / grid[0], size[1] / grid[1]
    return box * box.new_tensor((across, down, across, down))


def overlap(box: Tensor, truth: Tensor) -> float:
    """Return the largest intersection over union of a box (4,) with ground-truth boxes (n, 4); 0 if there are none."""
    return float(box_iou(box[None], truth.to(box)).max()) if len(truth) else 0.0


def is_localized(box: Tensor, truth: Tensor) -> bool:
    """Return whether a box is correct by CorLoc: it overlaps any ground-truth box by at least `LOCALIZED`."""
    return overlap(box, truth) >= LOCALIZED
