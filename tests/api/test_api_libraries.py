"""Ordinary models of timm, transformers and torchvision in every function of the Python API."""

from typing import Any

import pytest
import timm
import torch
from polars.testing import assert_frame_equal
from refusals import SMALL, refused
from torch import Tensor, nn

import sinkablate as sa

IMAGES = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def hugging_face(name: str) -> Any:
    transformers = pytest.importorskip("transformers")
    from hugging_face import SIZE

    config = getattr(transformers, name.partition("Model")[0].partition("For")[0] + "Config")
    return getattr(transformers, name)(config(**SIZE))


def used(model: nn.Module) -> tuple[Tensor, int]:
    """Call every function on a model; returns an attention map and the number of rows of an intervention."""
    m = sa.measure(model, IMAGES)
    assert m.heads.height == 6
    assert "[" not in repr(m).replace("block_numbers=[0, 1]", ""), "short enough for a notebook"
    assert sa.SinkDiagnostics(IMAGES).step(model, 0) == m.scalars
    effects = sa.intervene(model, IMAGES, [(0, 0), (1, 2)], ["zero_value", "donor_value", "redirect"])
    return sa.attention_maps(model, IMAGES, [(1, 2)])[1, 2], len(effects.rows)


def test_a_plain_model_of_timm() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
    maps, rows = used(model)
    assert maps.shape == (3, 17, 17)
    assert 2 * 3 * 2 <= rows <= 2 * 3 * 3  # an image without a donor has no row


@pytest.mark.parametrize("name", ["ViTModel", "Dinov2Model"])
def test_models_of_transformers(name: str) -> None:
    assert used(hugging_face(name))[0].shape == (3, 17, 17)


def test_a_classifier_of_transformers_is_measured_without_its_head() -> None:
    model = hugging_face("ViTForImageClassification")
    assert_frame_equal(sa.measure(model, IMAGES).heads, sa.measure(model.vit, IMAGES).heads)
    assert sa.SinkDiagnostics(IMAGES).step(nn.ModuleDict({"model": model}), 0) is not None


def test_images_of_another_size_are_refused() -> None:
    with refused("images: ViTModel refuses them: Input image size (48*48) doesn't match model (32*32)"):
        sa.measure(hugging_face("ViTModel"), torch.zeros(1, 3, 48, 48))
    with refused("images: expected a batch (n, 3, H, W), got a tensor of shape (1, 1, 32, 32)"):
        sa.measure(hugging_face("ViTModel"), torch.zeros(1, 1, 32, 32))


def test_models_of_torchvision_are_refused_and_named() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.VisionTransformer(32, 8, 2, 3, 48, 96)
    message = (
        "VisionTransformer (EncoderBlock) cannot be measured: block 0 has an unknown structure; expected a timm vision"
    )
    for function in (sa.measure, sa.intervene):
        with refused(message):
            function(model, IMAGES)
    with refused(message):
        sa.SinkDiagnostics(IMAGES).step(model, 0)


def test_tables_become_those_of_pandas() -> None:
    pytest.importorskip("pyarrow")
    m = sa.measure(sa.create_model("vit_mini", **SMALL), torch.randn(3, 1, 28, 28))
    for table in (m.heads, m.blocks):
        converted = table.to_pandas()
        assert converted.shape == table.shape
        assert list(converted.columns) == table.columns
