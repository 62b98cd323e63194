"""A model and images that the tests of the Python API share."""

import pytest
import torch
from refusals import SMALL
from torch import Tensor, nn

import sinkablate as sa


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return sa.create_model("vit_tiny_patch16_224", img_size=64, depth=3, gate="headwise", registers=2, num_classes=5)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def tiny() -> nn.Module:
    """The smallest model, for 28 pixels and one channel."""
    return sa.create_model("vit_mini", **SMALL)
