"""Heads, edits and classes that an intervention cannot use are refused in one line."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from refusals import IMAGES, SMALL, refused
from torch import nn

import sinkablate as sa
from sinkablate.intervene.edit import Edit
from sinkablate.intervene.edits import register_edit, unregister_edit


def test_without_a_head_that_sinks_nothing_is_edited(tiny: nn.Module) -> None:
    assert len(sa.intervene(tiny, IMAGES).rows) == 0


@pytest.mark.parametrize(
    "heads", [[], "1:0", ["1:0"], 5, (1, 0), [(1, 0, 2)], [(9, 0)], [(-1, 0)], [(True, False)]], ids=str
)
def test_heads_that_are_not_pairs_of_the_model_are_refused(heads: Any, tiny: nn.Module) -> None:
    for function in (sa.intervene, sa.attention_maps):
        with pytest.raises(sa.UserError, match=r"^heads(: |=)"):
            function(tiny, IMAGES, heads=heads)


def test_a_head_that_is_named_twice_counts_once(tiny: nn.Module) -> None:
    heads: Any = np.array([[1, 0], [0, 1], [1, 0]])
    assert list(sa.attention_maps(tiny, IMAGES, heads)) == [(1, 0), (0, 1)]
    assert len(sa.intervene(tiny, IMAGES, heads, "zero_value").rows) == 2 * len(IMAGES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"targets": [99, 0, 1]}, "targets: 99 is not one of the model's classes, 0 to 9"),
        ({"targets": [-1, 0, 1]}, "targets: -1 is not one of the model's classes"),
        ({"targets": [0.5, 0, 1]}, "targets=[0.5, 0, 1]: expected a list of int"),
        ({"targets": torch.zeros(3, 10)}, "targets: expected integers (n,), got float32 of shape (3, 10)"),
        ({"targets": np.array([0, 1])}, "targets: 2 given for 3 images"),
        ({"names": "abc"}, "names='abc': expected a list of str"),
        ({"names": ["a"]}, "names: 1 given for 3 images"),
        ({"edits": []}, "edits: is empty; name at least one"),
        ({"edits": [1]}, "edits=[1]: expected str or a list of str"),
        ({"edits": "register"}, "edits=register_zero,register_mean,register_donor: none of them can be made"),
        ({"rule": None}, "rule=None: expected str"),
        ({"seed": "a"}, "seed='a': expected int"),
        ({"thresholds": {"event_min": 0.5}}, "thresholds={'event_min': 0.5}: expected ThresholdConfig"),
        ({"selection": {"top": 3}}, "selection={'top': 3}: expected SelectionConfig"),
    ],
    ids=str,
)
def test_interventions_that_cannot_be_made_are_refused(words: dict[str, Any], message: str, tiny: nn.Module) -> None:
    with refused(message):
        sa.intervene(tiny, IMAGES, **{"heads": [(0, 0)], "edits": ["zero_value"], **words})


def test_classes_of_a_model_without_a_classifier_are_refused() -> None:
    with refused("targets: VisionTransformer has no classifier; leave targets out"):
        sa.intervene(sa.create_model("vit_mini", num_classes=0, **SMALL), IMAGES, [(0, 0)], targets=[0, 1, 2])


OWN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "wrong shape": (lambda site: site.replace_value(torch.zeros(3)), "the new value has shape (3,), expected (16,)"),
    "a number": (lambda site: site.replace_value(0.0), "'float' object has no attribute"),
    "a value": (lambda site: site.value, "build returned a Tensor; return the result of a method of the site"),
    "nothing": (lambda _: None, "none of them can be made on these heads and images"),
}


@pytest.fixture
def message_of_own_edit(request: pytest.FixtureRequest) -> Iterator[str]:
    build, message = OWN[request.param]
    register_edit(Edit("own", "own", "own", build))
    yield message
    unregister_edit("own")


@pytest.mark.parametrize("message_of_own_edit", OWN, indirect=True)
def test_an_edit_that_builds_something_else_is_refused(message_of_own_edit: str, tiny: nn.Module) -> None:
    with pytest.raises(sa.UserError, match=f"^edits?[ =]own: {re.escape(message_of_own_edit)}"):
        sa.intervene(tiny, IMAGES, [(0, 0)], ["own"])
