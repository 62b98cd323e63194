"""An exported run, made once for all workers; tests must not change it."""

from pathlib import Path

import pytest
from running import run
from sharing import Once


@pytest.fixture(scope="session")
def exported(finished: Path, once: Once) -> Path:
    """The run `finished` in the hub format, in a folder whose parent did not exist."""

    def write(root: Path) -> None:
        run("export", "--run", finished, "--out", root / "parent" / "model").succeeded()

    return once("exported", write) / "parent" / "model"
