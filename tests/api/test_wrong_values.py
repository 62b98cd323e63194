"""Wrong values in calls from Python are refused in one line that names the argument."""

import re
from typing import Any

import pytest
import torch

import sinkablate as sa


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": None}, "gate=None: expected none or headwise or elementwise"),
        ({"gate": "Headwise"}, "gate='Headwise'"),
        ({"gate": "headwise", "gate_position": "G1"}, "gate_position='G1'"),
        ({"pathway": "globl"}, "pathway='globl': expected none or global"),
        ({"registers": True}, "registers=True: expected"),
        ({"registers": "4"}, "registers='4': expected"),
        ({"score": "sigmoid", "sigmoid_bias": "foo"}, "sigmoid_bias='foo'"),
        ({"in_chans": 0}, "in_chans=0: expected a number of at least 1"),
    ],
    ids=str,
)
def test_a_value_that_an_option_does_not_take_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sa.UserError, match="^" + re.escape(message)):
        sa.create_model("vit_mini", **options)


def test_without_a_head_that_sinks_nothing_is_edited() -> None:
    model = sa.create_model("vit_mini")
    assert len(sa.intervene(model, torch.randn(2, 1, 28, 28)).rows) == 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 32, 32), "images: expected a batch (n, 1, 28, 28), got a tensor of shape (2, 1, 32, 32)"),
        (torch.zeros(2, 3, 28, 28), "images: expected a batch (n, 1, 28, 28), got a tensor of shape (2, 3, 28, 28)"),
        (torch.zeros(0, 1, 28, 28), "images: there are none"),
        ([torch.zeros(1, 28, 28), torch.zeros(1, 32, 32)], "images: they have different shapes"),
        (None, "images: got NoneType"),
    ],
    ids=["size", "channels", "empty", "two sizes", "none"],
)
def test_images_that_the_model_does_not_take_are_refused(images: Any, message: str) -> None:
    model = sa.create_model("vit_mini")
    for function in (sa.measure, sa.intervene, lambda *args: sa.attention_maps(*args, heads=[(0, 0)])):
        with pytest.raises(sa.UserError, match="^" + re.escape(message)):
            function(model, images)


@pytest.mark.parametrize("heads", [["1:0"], (1, 0), [(1, 0, 2)], [(9, 0)]], ids=str)
def test_heads_that_are_not_pairs_of_the_model_are_refused(heads: Any) -> None:
    model, images = sa.create_model("vit_mini"), torch.zeros(2, 1, 28, 28)
    for function in (sa.intervene, sa.attention_maps):
        with pytest.raises(sa.UserError, match=r"^heads: "):
            function(model, images, heads=heads)
