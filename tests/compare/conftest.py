"""A wide terminal for the tests of `compare`."""

import pytest


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the terminal so wide that no sentence is wrapped."""
    monkeypatch.setenv("COLUMNS", "1000")
