"""What is read from a forward pass of a frozen backbone, as data.

To add a reading, add a function to `READINGS`: from a model in eval mode and images (B, C, H, W) on its device to a
tensor with one row per image. The cache stores the rows in half precision, or as bytes if they are, under the name of
the reading.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import get_args
from weakref import WeakSet

import torch
from torch import Tensor, nn

from sinkablate.diagnostics.tap import Tap
from sinkablate.diagnostics.view import BlockView
from sinkablate.errors import UserError
from sinkablate.evaluate.backbones import RawPixels
from sinkablate.vit.anatomy import blocks_of, features, final_norm
from sinkablate.vit.projection_bias import Projection, without_bias
from sinkablate.vit.tokens import TokenLayout, class_token_count, token_layout

Reading = Callable[[nn.Module, Tensor], Tensor]


def last_output(model: nn.Module, images: Tensor) -> Tensor:
    """Return the tokens (B, N, D) after the last block, before the final norm."""
    outputs: list[Tensor] = []

    def keep(_: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    handle = blocks_of(model)[-1].register_forward_hook(keep)
    try:
        features(model, images)
    finally:
        handle.remove()
    return outputs[-1]


def last_tokens(model: nn.Module, images: Tensor) -> tuple[Tensor, TokenLayout]:
    """Return the tokens (B, N, D) after the last block and the final norm, and where CLS, registers and patches are."""
    tokens: Tensor = final_norm(model)(last_output(model, images))
    return tokens, token_layout(model, tokens.shape[1], images.shape[-2:])


def pooled(model: nn.Module, images: Tensor) -> Tensor:
    """Return the CLS token and the mean of the patch tokens, (B, 2, D); only the mean, (B, 1, D), without CLS."""
    if isinstance(model, RawPixels):
        return model.pooled(images)
    tokens, layout = last_tokens(model, images)
    mean = tokens[:, layout.num_prefix :].mean(dim=1, keepdim=True)
    return torch.cat([tokens[:, :1], mean], dim=1) if layout.num_cls else mean


def patches(model: nn.Module, images: Tensor) -> Tensor:
    """Return the patch tokens after the final norm, without CLS and registers, (B, P, D)."""
    if isinstance(model, RawPixels):
        return model.patches(images)
    tokens, layout = last_tokens(model, images)
    return tokens[:, layout.num_prefix :]


class _LastAttention:
    """Keeps the view of the last block, as a consumer of `Tap`."""

    view: BlockView

    def attention(self, view: BlockView) -> None:
        """Keep the view."""
        self.view = view

    def output(self, index: int, x: Tensor) -> None:
        """Ignore the output of the block."""


def _of_last_attention(projection: Projection, *, remove_bias: bool = False) -> Reading:
    """Return a reading of the queries, keys or values of the patches in the last block, (B, P, H d).

    Args:
        projection: Which of them; as attention uses them, after a norm, rotation or gate.
        remove_bias: Compute them without the bias of their linear map.
    """

    checked: WeakSet[nn.Module] = WeakSet()

    def read(model: nn.Module, images: Tensor) -> Tensor:
        consumer, last = _LastAttention(), len(blocks_of(model)) - 1
        removed = without_bias(model, last, projection) if remove_bias else nullcontext()
        with removed, Tap(model, consumer, [last], rebuild=model not in checked) as tap:
            tap.run(images)
        checked.add(model)
        layout = consumer.view.layout
        rows: Tensor = getattr(consumer.view, projection[0])[:, :, layout.num_prefix : layout.num_tokens]
        return rows.transpose(1, 2).flatten(2)

    return read


MASKS = "masks"
"""The reading that returns the images themselves, which are masks, and needs no model."""
READINGS: dict[str, Reading] = {
    MASKS: lambda _, images: images,
    "pooled": pooled,
    "patches": patches,
    **{name: _of_last_attention(name) for name in get_args(Projection)},
    **{f"{name}_without_bias": _of_last_attention(name, remove_bias=True) for name in get_args(Projection)},
}
"""Name -> function; see the head of this module."""


def feature_kind(model: nn.Module, kind: str) -> str:
    """Return which feature of an image a probe reads: `cls`, `patch` or `both`.

    Args:
        model: The evaluated model.
        kind: One of these names, or `auto`: cls if the model has a CLS token, otherwise patch.

    Raises:
        UserError: The model has no CLS token, and `kind` needs one.
    """
    has_cls = class_token_count(model) > 0
    if kind in ("cls", "both") and not has_cls:
        raise UserError(f"features.kind={kind}: the model has no CLS token; use patch")
    if kind == "auto":
        return "cls" if has_cls else "patch"
    return kind


def select(rows: Tensor, kind: str) -> Tensor:
    """Return one feature per image from rows of the reading `pooled`.

    Args:
        rows: (n, 2, D), or (n, 1, D) for raw pixels and for a model without CLS.
        kind: `cls`, `patch`, or `both` (concatenated, 2 D).

    Returns:
        (n, D) or (n, 2 D).
    """
    if kind == "both":
        return rows.flatten(1)
    return rows[:, -1 if kind == "patch" else 0]
