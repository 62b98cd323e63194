"""What an edit changes at the end of the network: in the final tokens, in a classifier's output, in a toy's error.

Axis letters: E edited copies of one image, N tokens, D model width, K classes.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.shares import divide
from sinkablate.toys.tasks import ToyTask
from sinkablate.vit.anatomy import classify

Judge = Callable[[Tensor, Tensor, int], dict[str, Tensor]]
"""Scores edited copies: (last block's output (1 + E, N, D) with the unedited copy first, the image (1, ...), its number
among all images) -> name to score (E,)."""


def relative_change(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Return the relative RMS change of the counted tokens, sqrt(sum ||x'_i - x_i||^2 / sum ||x_i||^2), (E,).

    Args:
        own: Tokens of the unedited copy after the final norm, (N, D).
        edited: Tokens of the edited copies after the final norm, (E, N, D).
        counted: True for the tokens that count, the patches other than the sink, (E, N) bool.
    """
    change = ((edited - own).square().sum(-1) * counted).sum(-1)
    return divide(change, (own.square().sum(-1) * counted).sum(-1)).sqrt()


def is_rounding(effect: Tensor) -> Tensor:
    """Return True where a relative change is so small that its direction is rounding noise, (E,) bool."""
    return effect < 10 * torch.finfo(effect.dtype).eps


def common_share(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Return the share of the change's energy that all counted tokens have in common, (E,).

    n ||mean_i c_i||^2 / sum_i ||c_i||^2 with c_i the change of token i: one if every token changes in the same way, 1/n
    for uncorrelated changes, NaN without any change.
    """
    energy = ((edited - own).square().sum(-1) * counted).sum(-1)
    return divide(mean_change(own, edited, counted).square().sum(-1) * counted.sum(-1), energy)


def mean_change(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Return the change averaged over the counted tokens, (E, D)."""
    return ((edited - own) * counted[..., None]).sum(-2) / counted.sum(-1, keepdim=True)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Return the cosine similarity along the last axis; NaN where a vector is zero."""
    return divide((x * y).sum(-1), x.norm(dim=-1) * y.norm(dim=-1))


def class_effects(logits: Tensor, target: int | None) -> dict[str, Tensor]:
    """Return what edits change in a classifier's output, (E,) each.

    `kl` is KL(unedited || edited) in nats; `agreement` is 1 if the predicted class stays the same. With a target also
    `top1` and `cross_entropy` (in nats) of the unedited copy, and `top1_edited` and `cross_entropy_edited`.

    Args:
        logits: Logits (1 + E, K), the unedited copy first.
        target: The true class, if it is known.
    """
    log_p = logits.log_softmax(-1)
    own, edited = log_p[0], log_p[1:]
    winners = logits.argmax(-1)
    effects = {
        "kl": (own.exp() * (own - edited)).sum(-1).clamp_min(0),
        "agreement": (winners[1:] == winners[0]).float(),
    }
    if target is not None:
        true = torch.full_like(winners[1:], target)
        effects |= {
            "top1": (winners[0] == true).float(),
            "top1_edited": (winners[1:] == true).float(),
            "cross_entropy": F.nll_loss(own.expand_as(edited), true, reduction="none"),
            "cross_entropy_edited": F.nll_loss(edited, true, reduction="none"),
        }
    return effects


def judge_of(loaded: LoadedModel, targets: Sequence[int] | Tensor | None) -> Judge:
    """Return the judge of a model: the error of a toy's task, or the outputs of a classifier.

    Args:
        loaded: The model.
        targets: Class of each image by its number, if the classes are known.
    """
    return classifier_judge(loaded.model, targets) if loaded.toy is None else toy_judge(loaded.toy)


def classifier_judge(model: nn.Module, targets: Sequence[int] | Tensor | None) -> Judge:
    """Return a judge that compares class probabilities; for a model without a classifier it returns no score."""

    def judge(last: Tensor, _image: Tensor, number: int) -> dict[str, Tensor]:
        logits = classify(model, last)
        return {} if logits is None else class_effects(logits, None if targets is None else int(targets[number]))

    return judge


def toy_judge(task: ToyTask) -> Judge:
    """Return a judge that computes the squared error of the edited and the unedited copy on a sequence."""

    def judge(last: Tensor, tokens: Tensor, _number: int) -> dict[str, Tensor]:
        outputs = last[:, last.shape[1] - tokens.shape[1] :]
        error = (task.prediction(tokens, outputs) - task.target(tokens)).square().mean((-2, -1))
        return {"loss": error[:1].expand(len(error) - 1), "loss_edited": error[1:]}

    return judge


def no_judge(_last: Tensor, _image: Tensor, _number: int) -> dict[str, Tensor]:
    """Return no score: the judge of a model that neither classifies nor has a task."""
    return {}
