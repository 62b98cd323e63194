import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    """Folder with the original files of Fashion-MNIST."""
    shared = os.environ.get("SINKABLATE_SHARED") or Path(__file__).resolve().parents[3] / "shared"
    folder = Path(shared) / "data"
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip("the original Fashion-MNIST files are missing (SINKABLATE_SHARED names their folder)")
    return folder
