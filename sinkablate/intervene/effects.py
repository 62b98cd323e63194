"""What an edit does to the end of the network, as pure functions.

Axis letters: E edited copies of one image, N tokens, D model width, K classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from sinkablate.diagnostics.routing import divide


def relative_change(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Relative RMS change of the counted tokens, sqrt(sum ||x'_i - x_i||^2 / sum ||x_i||^2), (E,).

    Args:
        own: Final, normed tokens of the unedited copy (N, D).
        edited: Those of the edited copies (E, N, D).
        counted: Which tokens count, (E, N) bool: patches without the sink.
    """
    change = ((edited - own).square().sum(-1) * counted).sum(-1)
    return divide(change, (own.square().sum(-1) * counted).sum(-1)).sqrt()


def is_rounding(effect: Tensor) -> Tensor:
    """Where a relative change is so small that its direction is that of rounding, (E,) bool."""
    return effect < 10 * torch.finfo(effect.dtype).eps


def common_share(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Share of the change's energy that is common to all counted tokens, n ||mean_i c_i||^2 / sum_i ||c_i||^2, (E,).

    One for the same change of every token, 1/n for an uncorrelated one, NaN without any change.
    """
    energy = ((edited - own).square().sum(-1) * counted).sum(-1)
    return divide(mean_change(own, edited, counted).square().sum(-1) * counted.sum(-1), energy)


def mean_change(own: Tensor, edited: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted tokens of the change, (E, D)."""
    return ((edited - own) * counted[..., None]).sum(-2) / counted.sum(-1, keepdim=True)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of vectors along the last axis; NaN where one is zero."""
    return divide((x * y).sum(-1), x.norm(dim=-1) * y.norm(dim=-1))


def class_effects(logits: Tensor, target: int | None) -> dict[str, Tensor]:
    """What edits do to a classifier, (E,) each, from logits (1 + E, K), the unedited copy first.

    `kl` is KL(own || edited) in nats, `agreement` whether the winning class stays; with a label also the unedited
    and edited `top1` and `cross_entropy` in nats.
    """
    log_p = logits.log_softmax(-1)
    own, edited = log_p[0], log_p[1:]
    winners = logits.argmax(-1)
    found = {"kl": (own.exp() * (own - edited)).sum(-1).clamp_min(0), "agreement": (winners[1:] == winners[0]).float()}
    if target is not None:
        wanted = torch.full_like(winners[1:], target)
        found |= {
            "top1": (winners[0] == wanted).float(),
            "top1_edited": (winners[1:] == wanted).float(),
            "cross_entropy": F.nll_loss(own.expand_as(edited), wanted, reduction="none"),
            "cross_entropy_edited": F.nll_loss(edited, wanted, reduction="none"),
        }
    return found
