"""Mean intersection over union, from one confusion matrix of all pixels of a set."""

import torch
from torch import Tensor

from sinkablate.data.dense import IGNORED


def confusion(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Count the pixels of each pair of classes, (C, C) int64: rows are targets, columns are predictions.

    Args:
        predicted: Predicted classes, of any shape.
        target: Classes, of the same shape; pixels with the value `IGNORED` are left out.
        classes: Number of classes C.
    """
    kept = target != IGNORED
    pairs = target[kept].long() * classes + predicted[kept].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def iou(counts: Tensor) -> Tensor:
    """Return the intersection over union of each class, (..., C) float64; NaN for a class without a target pixel.

    The pixels of all images are counted together, so an image does not have a value of its own.

    Args:
        counts: Confusion matrices (..., C, C); see `confusion`.
    """
    counts = counts.double()
    intersection, targets, predictions = counts.diagonal(dim1=-2, dim2=-1), counts.sum(-1), counts.sum(-2)
    return (intersection / (targets + predictions - intersection)).where(targets > 0, torch.nan)


def mean_iou(counts: Tensor) -> float:
    """Return the mean of `iou` over the classes that occur in the targets; NaN if none does."""
    return float(iou(counts).nanmean())


def pixel_accuracy(counts: Tensor) -> float:
    """Return the fraction of labeled pixels whose class is predicted."""
    return float(counts.diagonal().sum().double() / counts.sum())
