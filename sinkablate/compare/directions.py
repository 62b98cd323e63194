"""Whether higher or lower values of a metric are better, judged by its name."""

import re

HIGHER_IS_BETTER = frozenset(
    ("acc", "accuracy", "auc", "auroc", "dice", "f", "iou", "map", "miou", "precision", "psnr", "recall", "ssim", "top")
)
LOWER_IS_BETTER = frozenset(
    ("bce", "brier", "ece", "err", "error", "fid", "loss", "mae", "mse", "nll", "perplexity", "ppl", "rmse")
)
"""Last words of the names of metrics that have a better direction, without digits, as in `acc` of `val/acc1`."""


def lower_is_better(metric: str) -> bool | None:
    """Return whether smaller values of a metric are better; None if neither is, or if the name does not tell.

    Losses and accuracies have a better direction. The attention mass of a sink, its number of events, a norm, a gate
    and a number of steps do not have one.
    """
    words = [word for word in re.split(r"[\W\d_]+", metric.lower()) if word]
    if not words:
        return None
    return True if words[-1] in LOWER_IS_BETTER else False if words[-1] in HIGHER_IS_BETTER else None
