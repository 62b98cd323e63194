"""What the tests of `intervene` share."""

from pathlib import Path

import pytest
from intervening import intervene, summary
from sharing import Once


@pytest.fixture(scope="session")
def whole(finished: Path, once: Once) -> Path:
    """Three heads of a run on six of its images; to be read, not to be changed."""

    def make(root: Path) -> None:
        done = intervene(finished, root / "out").succeeded()
        assert done.out.startswith(summary(root / "out")["headline"])

    return once("intervened", make) / "out"
