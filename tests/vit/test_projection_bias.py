"""Removing the bias of queries, keys and values."""

from typing import get_args

import pytest
import torch
from families import family, pictures
from hugging_face import untrained
from tapping import tapped
from torch import nn
from variants import make, noise, perturbed

from sinkablate.errors import UserError
from sinkablate.vit.projection_bias import Projection, projection_bias, without_bias

MODELS = ("vit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224", "ViT", "own")


def model_and_images(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "own":
        return perturbed(make()).eval(), noise(2, 1, 28, 28)
    if name == "ViT":
        return untrained(name), noise(2, 3, 32, 32)
    model = family(name)
    return model, pictures(model)


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_values_are_computed_without_their_bias(name: str) -> None:
    """Values are the output of their map in every family; queries and keys may be rotated or normalized."""
    model, images = model_and_images(name)
    bias = projection_bias(model, 1, "values")
    assert bias is not None
    assert bias.abs().max() > 0
    stored = bias.clone()
    (_, before), _, _ = tapped(model, images)
    with without_bias(model, 1, "values"):
        (_, after), _, _ = tapped(model, images)
    expected = before.v - stored.view(1, before.v.shape[1], 1, -1)
    torch.testing.assert_close(after.v, expected, atol=1e-4, rtol=1e-4)
    assert after.k.equal(before.k)
    assert projection_bias(model, 1, "values").equal(stored)  # type: ignore[union-attr]


@torch.no_grad()
def test_queries_and_keys_of_a_plain_block() -> None:
    model, images = model_and_images("own")
    (_, before), _, _ = tapped(model, images)
    for projection in get_args(Projection)[:2]:
        with without_bias(model, 1, projection):
            (_, after), _, _ = tapped(model, images)
        letter = projection[0]
        bias = projection_bias(model, 1, projection)
        assert bias is not None
        expected = getattr(before, letter) - bias.view(1, before.q.shape[1], 1, -1)
        torch.testing.assert_close(getattr(after, letter), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "eva02_tiny_patch14_224", "eva_giant_patch14_224"])
def test_the_zeros_of_keys_without_bias_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="the keys of block 1 have no bias"), without_bias(family(name), 1, "keys"):
        pass


def test_a_map_without_bias_is_refused() -> None:
    model = make(qkv_bias=False)
    with pytest.raises(UserError, match="the keys of block 1 have no bias"), without_bias(model, 1, "keys"):
        pass
