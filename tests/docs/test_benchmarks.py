"""Every benchmark can be imported and is listed in the README; benchmarks are run by hand."""

import importlib

import pytest
from running import ROOT

FILES = sorted((ROOT / "benchmarks").glob("*.py"))
NAMES = [path.stem for path in FILES if "__main__" in path.read_text()]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported_and_is_listed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    importlib.import_module(f"benchmarks.{name}")
    assert f"python -m benchmarks.{name}" in (ROOT / "benchmarks" / "README.md").read_text()
