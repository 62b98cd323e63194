"""Accuracy of class scores."""

from torch import Tensor


def accuracies(scores: Tensor, targets: Tensor) -> dict[int, float]:
    """Return the top-1 accuracy and, with more than five classes, the top-5 accuracy, by the number of classes counted.

    Args:
        scores: (n, K).
        targets: Classes, (n,).
    """
    classes = scores.shape[1]
    hits = scores.topk(min(5, classes), dim=1).indices == targets.to(scores.device)[:, None]
    return {top: float(hits[:, :top].any(dim=1).double().mean()) for top in (1, 5) if top == 1 or classes > 5}
