"""Models, images and other arguments that cannot be measured are refused in one line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from refusals import IMAGES, SMALL, refused
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import sinkablate as sa

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "measure": sa.measure,
    "attention_maps": lambda *args, **words: sa.attention_maps(*args, heads=[(0, 0)], **words),
    "intervene": lambda *args, **words: sa.intervene(*args, heads=[(0, 0)], edits=["zero_value"], **words),
}


LOADER = DataLoader(TensorDataset(IMAGES), batch_size=2)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 32, 32), "images: expected a batch (n, 1, 28, 28), got a tensor of shape (2, 1, 32, 32)"),
        (torch.zeros(2, 3, 28, 28), "images: expected a batch (n, 1, 28, 28), got a tensor of shape (2, 3, 28, 28)"),
        (torch.zeros(1, 28, 28), "images: expected a batch (n, C, H, W), got a tensor of shape (1, 28, 28)"),
        (torch.zeros(0, 1, 28, 28), "images is empty; at least one image is needed"),
        ([], "images is empty; at least one image is needed"),
        (DataLoader([]), "images is empty; at least one image is needed"),  # type: ignore[arg-type]
        ([torch.zeros(1, 28, 28), torch.zeros(1, 32, 32)], "images have different shapes"),
        ((IMAGES, torch.zeros(3)), "images have different shapes"),
        ([{"image": IMAGES[0]}], "images: expected a batch (n, 1, 28, 28), got a tensor of shape (1, 28, 28)"),
        (IMAGES.byte(), "images: expected normalized floating-point values, got torch.uint8"),
        (IMAGES.numpy(), "images: a batch holds ndarray where a tensor"),
        (list(IMAGES.numpy()), "images: item 0 is of type ndarray"),
        (TensorDataset(IMAGES), "images is a TensorDataset: expected a batch (n, C, H, W), a list of images, a loc"),
        (None, "images=None: expected a batch (n, C, H, W), a list of images, a location or a DataLoader"),
        (3, "images=3: expected a batch"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_images_that_the_model_does_not_take_are_refused(
    images: Any, message: str, function: str, tiny: nn.Module
) -> None:
    with refused(message):
        FUNCTIONS[function](tiny, images)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_images_of_another_type_are_converted(function: str, tiny: nn.Module) -> None:
    FUNCTIONS[function](tiny, IMAGES.double().requires_grad_())
    FUNCTIONS[function](tiny, LOADER)


class Encoder(nn.TransformerEncoder):
    """Blocks, but no images."""

    def __init__(self) -> None:
        super().__init__(nn.TransformerEncoderLayer(32, 2, batch_first=True), 1, enable_nested_tensor=False)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "model=None: expected Module"),
        (lambda: "vit_mini", "model='vit_mini': expected Module"),
        (lambda: IMAGES, "model is a Tensor: expected Module"),
        (lambda: nn.Linear(2, 2), "Linear cannot be measured"),
        (Encoder, "Encoder cannot be measured: expected a timm vision transformer"),
        (lambda: sa.create_model("vit_mini", **SMALL).half(), "diagnostics need fp32 weights, got torch.float16: call"),
    ],
    ids=["none", "name", "swapped", "linear", "encoder", "half"],
)
def test_models_that_cannot_be_measured_are_refused(make: Callable[[], Any], message: str, function: str) -> None:
    with refused(message):
        FUNCTIONS[function](make(), IMAGES)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": "4"}, "batch_size='4': expected int"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"transform": "resize"}, "transform='resize': expected a function or None"),
        ({"batchsize": 4}, "{name}: got an unexpected keyword argument 'batchsize'; see help({name})"),
    ],
    ids=str,
)
def test_arguments_of_another_type_are_refused(
    words: dict[str, Any], message: str, function: str, tiny: nn.Module
) -> None:
    with refused(message.format(name=function)):
        FUNCTIONS[function](tiny, IMAGES, **words)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda image: image.width, "transform: must return a tensor (C, H, W), not int"),
        (lambda _: torch.zeros(28, 28), "transform: must return a tensor (C, H, W), not Tensor of shape (28, 28)"),
        (lambda image: image.nothing, "transform: it raised AttributeError: 'Image' object has no attribute"),
    ],
    ids=["number", "shape", "error"],
)
def test_a_transform_that_fails_is_named(transform: Any, message: str, tiny: nn.Module) -> None:
    with refused(message):
        sa.measure(tiny, "builtin", transform=transform)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"blocks": 1}, "blocks=1: expected a list of int or None"),
        ({"blocks": ["1"]}, "blocks=['1']: expected a list of int or None"),
        ({"thresholds": {"event_min": 0.5}}, "thresholds={'event_min': 0.5}: expected ThresholdConfig or None"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_refused(words: dict[str, Any], message: str, tiny: nn.Module) -> None:
    with refused(message):
        sa.measure(tiny, IMAGES, **words)


def test_a_rule_is_a_name(tiny: nn.Module) -> None:
    m = sa.measure(tiny, IMAGES)
    for rule, message in ((None, "rule=None: expected str"), (["causal"], "rule=['causal']"), ("x", "rule=x: no such")):
        with refused(message):
            m.labels(rule)  # type: ignore[arg-type]
