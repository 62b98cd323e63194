"""How much the mechanisms that were added to a pretrained model change its output before any training."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from sinkablate.vit.anatomy import features
from sinkablate.vit.tokens import token_layout

NOTICEABLE = 0.01
"""Relative change of the final tokens above which `fit` and `diagnose` warn."""
STATE_KEY = "StartDrift"
"""Key of the numbers in a checkpoint, among the states of callbacks."""


@torch.no_grad()
def drift(model: nn.Module, unchanged: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the relative change of the final tokens, ||F' - F|| / ||F||, with Frobenius norms over images and tokens.

    The final tokens are those after the last norm, in evaluation mode, without registers. Copies of the models compute
    them in float64, because rounding in fp32 alone changes those of DINOv2 ViT-S/14 by 1e-6 to 2e-6.

    Args:
        model: The model with mechanisms, which gives F'; it is left as it is.
        unchanged: The model with the same weights and without them, which gives F.
        images: (B, C, H, W).

    Returns:
        The change of all tokens, `tokens`, and of both kinds, `cls` (if the model has a class token) and `patches`.
    """
    changed, original = _final_tokens(model, images), _final_tokens(unchanged, images)
    return {kind: float((changed[kind] - tokens).norm() / tokens.norm()) for kind, tokens in original.items()}


def _final_tokens(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return all tokens but registers, the class tokens if there are any, and the patches."""
    tokens = features(deepcopy(model).double().eval(), images.double())
    layout = token_layout(model, tokens.shape[1], images.shape[-2:])
    cls, patches = tokens[:, : layout.num_cls], tokens[:, layout.num_prefix :]
    kinds = {"tokens": torch.cat((cls, patches), dim=1), "cls": cls, "patches": patches}
    return {kind: part for kind, part in kinds.items() if part.shape[1]}


def drift_sentence(summary: Mapping[str, Any]) -> str:
    """Say in one line how much a pretrained model was changed, and by what; a warning above 1 %.

    Args:
        summary: What `drift` returns, with the names of the mechanisms, `added`, and the number of images, `images`.
    """
    kinds = ", ".join(f"{kind} {_share(summary[kind])}" for kind in ("cls", "patches") if kind in summary)
    return (
        ("warning: " if summary["tokens"] > NOTICEABLE else "")
        + f"{' and '.join(summary['added'])} changed the final tokens of the pretrained model by "
        f"{_share(summary['tokens'])} at step 0 ({kinds}; {summary['images']} images)"
    )


def _share(value: float) -> str:
    """Format a relative change: in percent, or as 1.4e-06 if it is below .1 %."""
    return f"{value:.1%}" if value >= 1e-3 else f"{value:.1e}"
