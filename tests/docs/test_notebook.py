"""The notebook of the documentation runs from top to bottom, and ships with its outputs."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from running import ROOT

PATH = ROOT / "docs" / "quickstart.ipynb"


def outputs(notebook: nbformat.NotebookNode) -> str:
    """All plain text that the code cells left."""
    return "\n".join(
        output.get("text") or output["data"]["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") != "stderr"
    )


def assert_finding(text: str) -> None:
    """The toy's head is a NOP on every sequence, and only an ordinary value changes its output."""
    assert re.findall(r"'(NOP|BROADCAST|OTHER|NONE)': (\d+)", text) == [("NOP", "32")]
    effects = {name: float(value) for name, value in re.findall(r"│ (\w+_value)\s*┆ ([\d.]+)", text)}
    assert effects["zero_value"] < 0.1
    assert effects["donor_value"] < 0.1
    assert effects["ordinary_value"] > 0.5


def test_it_ships_with_its_outputs() -> None:
    notebook = nbformat.read(PATH, as_version=4)
    assert_finding(outputs(notebook))
    assert '"image/png"' in PATH.read_text()
    assert not re.search(r"/(tmp|home|root|work)/", outputs(notebook))


@pytest.mark.heavy
def test_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(PATH, as_version=4)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": PATH.parent}}
    ).execute()
    assert_finding(outputs(notebook))
