"""Whether higher or lower values of a metric are better, judged by its name."""

import re

HIGHER_IS_BETTER = frozenset(
    ("acc", "accuracy", "auc", "auroc", "corloc", "dice", "f", "iou", "map", "miou", "precision", "psnr", "recall")
) | {"ssim", "top", "quantization cosine"}
LOWER_IS_BETTER = frozenset(
    ("bce", "brier", "destroyed", "ece", "err", "error", "fid", "kl", "loss", "mae", "mse", "nll", "perplexity", "ppl")
) | {"rmse", "spikes", "acc drop", "miou drop", "nonfinite steps", "lr sensitivity"}
"""Last word, or last two words, of the names of metrics that have a better direction, without digits: `acc` of
`val/acc1`, `nonfinite steps` of `stability/nonfinite_steps`."""
_CHOSEN = re.compile(r"_(best|low|high)$")
"""The best epoch, or an end of an interval, has the direction of the metric itself."""


def lower_is_better(metric: str) -> bool | None:
    """Return whether smaller values of a metric are better; None if neither is, or if the name does not tell.

    Losses, accuracies and counts of spikes have a better direction. The attention mass of a sink, its number of events,
    a norm, a gate and a number of steps do not have one. Of the number of an evaluation, `task/metric`, neither its
    protocol (`knn/acc1/cls k=10`) nor its floor (`knn/acc1@random`) counts; other names can have more parts before the
    metric (`eval/imagenet/acc1`).
    """
    name = metric.lower().partition("@")[0]
    for part in ("/".join(name.split("/")[:2]), name):
        words = [word for word in re.split(r"[\W\d_]+", _CHOSEN.sub("", part)) if word]
        endings = {" ".join(words[-1:]), " ".join(words[-2:])}
        if endings & (LOWER_IS_BETTER | HIGHER_IS_BETTER):
            return not endings.isdisjoint(LOWER_IS_BETTER)
    return None
