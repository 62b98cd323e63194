"""Arguments that `SinkDiagnostics` cannot use are refused in one line."""

from typing import Any

import pytest
import torch
from refusals import IMAGES, SMALL, refused
from torch import nn
from torch.utils.data import TensorDataset

import sinkablate as sa


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"every_n_steps": "50"}, "every_n_steps='50': expected int"),
        ({"every_n_steps": 2.5}, "every_n_steps=2.5: expected int"),
        ({"limit": "4"}, "limit='4': expected int or None"),
        ({"backbone": 3}, "backbone=3: expected str or None"),
        ({"thresholds": {"event_min": 0.5}}, "thresholds={'event_min': 0.5}: expected ThresholdConfig"),
        ({"images": None}, "images=None: expected a batch (n, C, H, W) or an iterable of batches"),
        ({"images": "builtin"}, "images='builtin': expected a batch (n, C, H, W) or an iterable of batches"),
        ({"images": TensorDataset(IMAGES)}, "images is a TensorDataset: expected a batch"),
        ({"images": IMAGES[:0]}, "images is empty; at least one image is needed"),
        ({"images": []}, "images is empty; at least one image is needed"),
        ({"images": [IMAGES.numpy()]}, "images: a batch holds ndarray"),
        ({"images": (IMAGES, torch.zeros(3))}, "images have different shapes"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_a_callback_that_cannot_measure_is_refused(words: dict[str, Any], message: str, tiny: nn.Module) -> None:
    with refused(message):
        sa.SinkDiagnostics(**{"images": IMAGES, **words}).step(tiny, 0)


@pytest.mark.parametrize("words", [(1, "model"), ("model", "0"), ("model", None), (None, 0), ("model",)], ids=str)
def test_swapped_arguments_of_step_are_refused(words: tuple[Any, ...], tiny: nn.Module) -> None:
    with pytest.raises(sa.UserError, match=r"^(model|step)[=:]"):
        sa.SinkDiagnostics(IMAGES).step(*(tiny if word == "model" else word for word in words))


def test_two_models_are_measured_at_the_same_step(tiny: nn.Module) -> None:
    sinks, other = sa.SinkDiagnostics(IMAGES), sa.create_model("vit_mini", seed=1, **SMALL)
    first, second = sinks.step(tiny, 0), sinks.step(other, 0)
    assert first
    assert second
    assert first != second
    assert sinks.step(other, 0) is None, "a model is measured once per step"
