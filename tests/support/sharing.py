"""Makes folders that several tests read and none changes, once for all workers of a test session."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

Make = Callable[[Path], object]
Once = Callable[[str, Make], Path]
"""Returns the folder of a name, filled by a function unless it has been filled already."""


def shared_by_workers(factory: pytest.TempPathFactory) -> Once:
    """Return a function that makes folders next to those of the workers; the second caller waits for the first."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, make: Make) -> Path:
        folder, complete = root / name, root / f"{name}.complete"
        with FileLock(root / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a failed attempt
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return once
