"""A wide terminal for all tests of `compare`."""

import pytest


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal in which no sentence is wrapped."""
    monkeypatch.setenv("COLUMNS", "1000")
