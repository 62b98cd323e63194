"""What the tests of callbacks share."""

import pytest

from sinkablate.data.datamodule import ImageData


@pytest.fixture(scope="session")
def data() -> ImageData:
    """The embedded images, decoded once."""
    return ImageData(batch_size=8)
