"""Fixtures shared by the tests of `intervene`."""

from pathlib import Path

import pytest
from intervening import intervene
from running import summary
from sharing import Once


@pytest.fixture(scope="session")
def intervened(finished: Path, once: Once) -> Path:
    """An intervention on three heads of a run and six of its images; tests must not change it."""

    def make(root: Path) -> None:
        done = intervene(finished, root / "out").succeeded()
        assert done.out.startswith(summary(root / "out")["headline"])

    return once("intervened", make) / "out"
