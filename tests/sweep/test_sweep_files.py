"""Invalid sweep files are refused before a cell starts; the shipped ones are valid for W&B and for `fit`."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from running import ROOT, assert_refused, run
from sweeping import content, opened, root_of, sweep, written

from sinkablate.files.shipped import shipped_names

SHIPPED = [ROOT / "sweeps" / f"{name}.yaml" for name in shipped_names("sweeps")]
CELLS = {
    "ablation": 30,
    "dense": 30,
    "mechanisms": 50,
    "mixed": 45,
    "pathway_arms": 15,
    "smoke": 8,
    "stability": 54,
    "sweep": 18,
    "table1": 4,
    "toys": 180,
    "toys_gamma": 20,
    "toys_p": 25,
    "toys_registers": 20,
}
"""Number of cells of each shipped sweep."""


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    """A change that removes a key."""
    return lambda sweep_content: sweep_content.pop(key)


def parameter(key: str, spec: Any) -> Callable[[dict[str, Any]], Any]:
    """A change that sets a parameter."""
    return lambda sweep_content: sweep_content["parameters"].update({key: spec})


def command(change: Callable[[list[str]], Any]) -> Callable[[dict[str, Any]], Any]:
    """A change of the command."""
    return lambda sweep_content: change(sweep_content["command"])


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a method that samples": (lambda sweep_content: sweep_content.update(method="bayes"), "method=bayes"),
    "an unknown key": (lambda sweep_content: sweep_content.update(stop=1), "stop: no such key"),
    "early termination": (
        lambda sweep_content: sweep_content.update(early_terminate={"type": "hyperband"}),
        "early_terminate",
    ),
    "no name": (without("name"), "name"),
    "no parameters": (without("parameters"), "parameters"),
    "a range": (parameter("model.optim.lr", {"min": 0, "max": 1}), "parameters.model.optim.lr"),
    "nested parameters": (parameter("model", {"parameters": {"x": {"value": 1}}}), "dotted keys"),
    "a bare null": (parameter("model.backbone.depth", {"values": [None, 2]}), '"null"'),
    "a mapping as a value": (parameter("model.backbone.attention", {"values": [{"gate": "none"}]}), "quotes"),
    "an empty list": (parameter("model.optim.lr", {"values": []}), "model.optim.lr"),
    "value and values": (parameter("model.optim.lr", {"value": 1, "values": [1]}), "exactly one"),
    "a parameter of the hardware": (parameter("trainer.devices", {"values": [1, 2]}), "trainer.devices"),
    "a parameter that changes no result": (
        parameter("model.backbone.attention.kernel", {"values": ["auto", "explicit"]}),
        "parameters.model.backbone.attention.kernel: cannot be swept",
    ),
    "duplicate values": (parameter("seed_everything", {"values": [1, 1]}), "duplicate cells"),
    "the same number twice": (parameter("model.backbone.registers", {"values": [4, "4"]}), "duplicate cells"),
    "arguments before the configs": (command(lambda args: args.insert(0, args.pop())), "last"),
    "a command without the name": (command(lambda args: args.remove("small")), "--sweep small"),
    "a missing config": (command(lambda args: args.insert(-1, "--config=none.yaml")), "none.yaml"),
    "an unknown parameter": (parameter("model.backbone.sinks", {"values": [1]}), "sinks"),
    "an abbreviated parameter": (parameter("model.backbone.regist", {"values": [1]}), "regist"),
    "an invalid value": (parameter("model.backbone.attention.gate", {"values": ["wide"]}), "gate"),
    "an illegal combination": (parameter("model.backbone.register_pos_embed", {"value": True}), "registers=0"),
    "an invalid seed": (parameter("seed_everything", {"values": [0, -1]}), "seed"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_an_invalid_file_is_refused_before_a_cell_starts(
    change: Callable[[dict[str, Any]], Any], message: str, command: str, tmp_path: Path
) -> None:
    sweep_content = content()
    sweep_content["parameters"] = dict(sweep_content["parameters"])
    change(sweep_content)
    path = written(tmp_path, sweep_content)
    assert_refused(sweep(command, path), f"error: {path}", message)
    assert not list(root_of(path).glob("*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not YAML"),
        ("a: {b: 1, b: 2}", "the key b is repeated"),
        ("- 1", "mapping"),
        ("\x00", "YAML"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_not_a_sweep_is_refused(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_text(text)
    assert_refused(run("sweep", "plan", path), message)


def test_an_unknown_command_is_refused() -> None:
    outcome = run("sweep", "start", "x")
    assert outcome.code == 2
    assert "start: no such command; did you mean status?" in outcome.err


def test_the_plan_lists_the_cells(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    plan = json.loads(sweep("plan", path, "--format", "json").succeeded().out)
    assert [cell["id"] for cell in plan["cells"]] == [cell.id for cell in opened(path).cells]
    assert plan["cells"][3]["factors"] == {"registers": "2", "seed": "1"}
    assert plan["cells"][3]["run_dir"] == str(root_of(path) / plan["cells"][3]["id"])
    table = sweep("plan", path).succeeded().out
    assert "4 todo" in table
    assert plan["cells"][0]["id"] in table


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Schema of sweep files from W&B's package `sweeps`, which is not imported because it requires an older NumPy."""
    folder = tmp_path_factory.mktemp("sweeps")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "sweeps", "--no-deps", "-d", str(folder)],
        check=True,
        capture_output=True,
        timeout=600,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        content_of_schema: dict[str, Any] = json.loads(wheel.read("sweeps/config/schema.json"))
    return content_of_schema


def test_the_schema_rejects_an_invalid_sweep(schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"method": "grid", "parameters": {"x": {"values": "none"}}}, schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_sweep_is_valid_for_wandb_and_for_fit(
    path: Path, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    monkeypatch.chdir(ROOT)
    confounded = ["--allow_confounded"] if "--allow_confounded" in path.read_text() else []
    plan = json.loads(run("sweep", "plan", path, "--out", tmp_path, "--format", "json", *confounded).succeeded().out)
    assert len(plan["cells"]) == CELLS[path.stem]
    assert plan["name"] == path.stem
