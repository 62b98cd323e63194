import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    shared = os.environ.get("SINKABLATE_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    folder = Path(shared) / "data"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("the original Fashion-MNIST files are missing (SINKABLATE_SHARED names their folder)")
    return folder
