"""Whether higher or lower values of a metric are better, judged by its name."""

import re

HIGHER_IS_BETTER = frozenset(
    ("acc", "accuracy", "auc", "auroc", "corloc", "dice", "f", "iou", "map", "miou", "precision", "psnr", "recall")
) | {"ssim", "top", "miou best", "quantization cosine"}
LOWER_IS_BETTER = frozenset(
    ("bce", "brier", "destroyed", "ece", "err", "error", "fid", "kl", "loss", "mae", "mse", "nll", "perplexity", "ppl")
) | {"rmse", "spikes", "acc drop", "miou drop", "nonfinite steps", "lr sensitivity"}
"""Last word, or last two words, of the names of metrics that have a better direction, without digits: `acc` of
`val/acc1`, `nonfinite steps` of `stability/nonfinite_steps`."""


def lower_is_better(metric: str) -> bool | None:
    """Return whether smaller values of a metric are better; None if neither is, or if the name does not tell.

    Losses, accuracies and counts of spikes have a better direction. The attention mass of a sink, its number of events,
    a norm, a gate and a number of steps do not have one.
    """
    words = [word for word in re.split(r"[\W\d_]+", metric.lower()) if word]
    endings = {" ".join(words[-1:]), " ".join(words[-2:])}
    return True if endings & LOWER_IS_BETTER else False if endings & HIGHER_IS_BETTER else None
