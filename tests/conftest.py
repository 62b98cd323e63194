import os
from pathlib import Path

import pytest
import torch
from variants import mechanisms


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def dinov2() -> Path:
    """A real DINOv2 ViT-S/14 in timm's key names."""
    shared = os.environ.get("SINKABLATE_SHARED") or Path(__file__).resolve().parents[2] / "shared"
    found = Path(shared) / "data" / "vit_small_patch14_dinov2.safetensors"
    if not found.is_file():
        pytest.skip("the pretrained weights are not here (SINKABLATE_SHARED names the folder)")
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `mechanism` sees every legal combination of the axes."""
    if "mechanism" in metafunc.fixturenames:
        found = mechanisms()
        metafunc.parametrize("mechanism", found.values(), ids=found.keys())
