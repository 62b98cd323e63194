"""What several tests read and nobody changes is made once, for all workers of a test session."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

Make = Callable[[Path], object]
Once = Callable[[str, Make], Path]
"""Returns the folder of a name, filled by a function unless somebody has filled it already."""


def shared_by_workers(factory: pytest.TempPathFactory) -> Once:
    """Folders beside those of the workers; whoever comes second waits for the first."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def once(name: str, make: Make) -> Path:
        folder, whole = root / name, root / f"{name}.whole"
        with FileLock(root / f"{name}.lock"):
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return once
