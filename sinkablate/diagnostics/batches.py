"""Batches of images: how they come out of a user's DataLoader, and what a model accepts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sinkablate.diagnostics.random_state import random_state_kept
from sinkablate.errors import UserError
from sinkablate.vit.anatomy import reads_texts
from sinkablate.vit.inputs import input_shape
from sinkablate.vit.tokens import max_positions, text_tokens

PIXELS = ("pixel_values", "image", "images", "input_ids")
"""Keys under which the batches of common data sets keep their images or token ids."""
_SEED = 2606_08105
"""Seed with which a DataLoader is read: independent of training, so that its images are the same in every run."""


def pixels_of(batch: Any) -> Tensor:
    """Return the images, or the token ids, of one batch of a DataLoader.

    Args:
        batch: A tensor, a tuple or list that begins with one, or a mapping with one of `PIXELS`.

    Raises:
        UserError: The batch is something else.
    """
    if isinstance(batch, Mapping):
        batch = next((batch[name] for name in PIXELS if name in batch), None)
    elif isinstance(batch, Sequence) and batch:
        batch = batch[0]
    if not isinstance(batch, Tensor):
        raise UserError(
            f"images: a batch holds {type(batch).__name__} where a tensor (n, C, H, W) was expected; "
            f"yield a tensor, a tuple that begins with one, or a mapping with {' or '.join(PIXELS)}"
        )
    return batch


def draw_images(source: Iterable[Any], limit: int | None) -> Tensor:
    """Return the first images of an iterable of batches, the same ones however often and wherever it is called.

    The random numbers of samplers and augmentations come from a fixed seed; afterward, the global random state and the
    generators of a DataLoader are what they were before.

    Args:
        source: Batches as for `pixels_of`.
        limit: Largest number of images; None takes all of them.

    Returns:
        The images, (n, C, H, W).

    Raises:
        UserError: There are no images, or they have different shapes.
    """
    with random_state_kept(_SEED), _generators_kept(source):
        batches: Any = source
        if isinstance(source, DataLoader):  # a copy starts its own workers
            batches = copy(source)
            batches._iterator = None
        images = list(islice((image for batch in batches for image in pixels_of(batch)), limit))
    require_images(len(images))
    return stacked(images)


def stacked(images: Sequence[Tensor]) -> Tensor:
    """Stack images.

    Raises:
        UserError: They have different shapes.
    """
    if len(shapes := {tuple(image.shape) for image in images}) > 1:
        raise UserError(
            f"images have different shapes: {', '.join(map(str, sorted(shapes)))}; "
            "for a batch with labels, pass only the images"
        )
    return torch.stack(list(images))


def require_images(count: int) -> None:
    """Refuse an empty set of images.

    Raises:
        UserError: The count is zero.
    """
    if not count:
        raise UserError("images is empty; at least one image is needed")


def require_input(model: nn.Module, batch: Tensor) -> None:
    """Check that a model accepts a batch of images, as far as its patch embedding says.

    Raises:
        UserError: The batch is empty, or has the wrong shape or type.
    """
    require_images(len(batch) if batch.ndim else 0)
    if reads_texts(model):
        _require_texts(model, batch)
        return
    channels, size = input_shape(model)
    expected = [str(number or "any") for number in ("n", channels, *(size or ("H", "W")))]
    fits = channels is None or (
        batch.ndim == 4 and batch.shape[1] == channels and (size is None or tuple(batch.shape[2:]) == size)
    )
    if not fits:
        raise UserError(f"images: expected a batch ({', '.join(expected)}), got a tensor of shape {tuple(batch.shape)}")
    if not batch.is_floating_point():
        raise UserError(f"images: expected normalized floating-point values, got {batch.dtype}")


def _require_texts(model: nn.Module, batch: Tensor) -> None:
    """Check that a batch holds token ids without padding, and token types if there is a second row.

    Raises:
        UserError: It does not, a text is longer than the positions of the model, or a token id is unknown.
    """
    if batch.is_floating_point() or batch.ndim not in (2, 3) or (batch.ndim == 3 and batch.shape[1] != 2):
        raise UserError(
            f"images: {type(model).__name__} reads texts: expected token ids (n, N) of an integer type, "
            f"got {batch.dtype} of shape {tuple(batch.shape)}"
        )
    ids, known, longest = text_tokens(batch)[0], _vocabulary(model), max_positions(model)
    if longest and ids.shape[1] > longest:
        raise UserError(
            f"images: the texts have {ids.shape[1]} tokens, but {type(model).__name__} has only {longest} positions; "
            "truncate them"
        )
    if ids.min() < 0 or (known and ids.max() >= known):
        raise UserError(
            f"images: token ids must be from 0 to {known - 1}, got {int(ids.min())} to {int(ids.max())}; use the "
            "tokenizer of this model"
        )
    if (pad := _padding(model, ids)) is not None:
        raise UserError(f"images: texts are padded (token {pad}); pass texts of the same length, without padding")


def _vocabulary(model: nn.Module) -> int:
    """Return the number of token ids that a language model knows; 0 if it does not say."""
    return int(getattr(getattr(model, "config", None), "vocab_size", None) or 0)


def _padding(model: nn.Module, ids: Tensor) -> int | None:
    """Return the token with which texts (n, N) are padded at either end, or None.

    A text can end with one token that ends it, so a token that is also used for that must be repeated to count.
    """
    config = getattr(model, "config", None)
    pad, end = (getattr(config, f"{name}_token_id", None) for name in ("pad", "eos"))
    if isinstance(pad, int) and pad != end and (ids[:, [0, -1]] == pad).any():
        return pad
    if isinstance(end, int) and ids.shape[1] > 1:
        repeated = [(ids[:, ends] == end).all(1).any() for ends in (slice(2), slice(-2, None))]
        return end if any(repeated) else None
    return None


def accepted(model: nn.Module, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Yield batches of images (B, C, H, W) on the device of a model that accepts them.

    Raises:
        UserError: There are no images, or the model does not accept a batch.
    """
    device, count = next(model.parameters()).device, 0
    for batch in batches:
        require_input(model, batch)
        count += len(batch)
        yield batch.to(device)
    require_images(count)


@contextmanager
def _generators_kept(source: Any) -> Iterator[None]:
    """Seed the generators that a DataLoader and its samplers own, and restore them after the block."""
    samplers = [getattr(source, name, None) for name in ("sampler", "batch_sampler")]
    owners = [source, *samplers, *(getattr(sampler, "sampler", None) for sampler in samplers)]
    generators = [getattr(owner, "generator", None) for owner in owners]
    before = [(g, g.get_state()) for g in generators if isinstance(g, torch.Generator)]
    try:
        for generator, _ in before:
            generator.manual_seed(_SEED)
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)
