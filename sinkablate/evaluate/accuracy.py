"""Accuracy of class scores."""

from math import inf

from torch import Tensor


def accuracies(scores: Tensor, targets: Tensor, above: float = -inf) -> dict[int, float]:
    """Return the top-1 accuracy and, with more than five classes, the top-5 accuracy, by the number of classes counted.

    Args:
        scores: (n, K).
        targets: Classes, (n,).
        above: Only a class with a higher score can be a hit: of votes, 0, because the order of the classes that nobody
            votes for is arbitrary.
    """
    classes = scores.shape[1]
    top_scores, best = scores.topk(min(5, classes), dim=1)
    hits = (best == targets.to(scores.device)[:, None]) & (top_scores > above)
    return {top: float(hits[:, :top].any(dim=1).double().mean()) for top in (1, 5) if top == 1 or classes > 5}
