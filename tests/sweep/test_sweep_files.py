"""Sweep files: wrong ones are refused before a cell starts; the shipped ones are valid for W&B and for `fit`."""

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
from running import ROOT, run
from sweeping import content, opened, root_of, sweep, written

SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made.pop(key)


def parameter(key: str, spec: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda made: made["parameters"].update({key: spec})


def command(change: Callable[[list[str]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda made: change(made["command"])


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a method that draws": (lambda made: made.update(method="bayes"), "method=bayes"),
    "an unknown key": (lambda made: made.update(stop=1), "stop: no such key"),
    "a stop before the end": (lambda made: made.update(early_terminate={"type": "hyperband"}), "early_terminate"),
    "no name": (without("name"), "name"),
    "no parameters": (without("parameters"), "parameters"),
    "a range": (parameter("model.optim.lr", {"min": 0, "max": 1}), "parameters.model.optim.lr"),
    "nested parameters": (parameter("model", {"parameters": {"x": {"value": 1}}}), "dotted keys"),
    "a bare null": (parameter("model.backbone.depth", {"values": [None, 2]}), '"null"'),
    "a mapping as a value": (parameter("model.backbone.attention", {"values": [{"gate": "none"}]}), "quotes"),
    "an empty list": (parameter("model.optim.lr", {"values": []}), "model.optim.lr"),
    "value and values": (parameter("model.optim.lr", {"value": 1, "values": [1]}), "exactly one"),
    "where it is computed": (parameter("trainer.devices", {"values": [1, 2]}), "trainer.devices"),
    "duplicate values": (parameter("seed_everything", {"values": [1, 1]}), "duplicate cells"),
    "the same number twice": (parameter("model.backbone.registers", {"values": [4, "4"]}), "duplicate cells"),
    "arguments before the configs": (command(lambda words: words.insert(0, words.pop())), "last"),
    "no name in the command": (command(lambda words: words.remove("small")), "--sweep small"),
    "a config that is not there": (command(lambda words: words.insert(-1, "--config=none.yaml")), "none.yaml"),
    "an unknown parameter": (parameter("model.backbone.sinks", {"values": [1]}), "sinks"),
    "an abbreviated parameter": (parameter("model.backbone.regist", {"values": [1]}), "regist"),
    "a value that is none": (parameter("model.backbone.attention.gate", {"values": ["wide"]}), "gate"),
    "an illegal combination": (parameter("model.backbone.register_pos_embed", {"value": True}), "registers=0"),
    "a seed that is none": (parameter("seed_everything", {"values": [0, -1]}), "seed"),
}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_before_anything_starts(
    change: Callable[[dict[str, Any]], Any], said: str, command: str, tmp_path: Path
) -> None:
    made = content()
    made["parameters"] = dict(made["parameters"])
    change(made)
    path = written(tmp_path, made)
    outcome = sweep(command, path)
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith(f"error: {path}")
    assert said in line
    assert not list(root_of(path).glob("*"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not YAML"),
        ("a: {b: 1, b: 2}", "the key b is repeated"),
        ("- 1", "mapping"),
        ("\x00", "YAML"),
        (None, "no such file"),
    ],
)
def test_a_file_that_is_no_sweep_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    if text is not None:
        path.write_text(text)
    outcome = run("sweep", "plan", path)
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert said in line


def test_an_unknown_command_is_refused() -> None:
    outcome = run("sweep", "start", "x")
    assert outcome.code == 2
    assert "start: no such command; did you mean status?" in outcome.err


def test_the_plan_lists_cells_and_ids(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    shown = json.loads(sweep("plan", path, "--format", "json").succeeded().out)
    assert [cell["id"] for cell in shown["cells"]] == [cell.id for cell in opened(path).cells]
    assert shown["cells"][3]["factors"] == {"registers": "2", "seed": "1"}
    assert shown["cells"][3]["run_dir"] == str(root_of(path) / shown["cells"][3]["id"])
    table = sweep("plan", path).succeeded().out
    assert "4 todo" in table
    assert shown["cells"][0]["id"] in table


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """W&B's own schema of sweep files, from its package `sweeps`, which needs an older numpy and is not imported."""
    folder = tmp_path_factory.mktemp("sweeps")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "sweeps", "--no-deps", "-d", str(folder)],
        check=True,
        capture_output=True,
        timeout=600,
    )
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        found: dict[str, Any] = json.loads(wheel.read("sweeps/config/schema.json"))
    return found


def test_the_schema_notices_what_is_wrong(schema: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"method": "grid", "parameters": {"x": {"values": "none"}}}, schema)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_sweep_is_valid_for_wandb_and_for_fit(
    path: Path, schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)
    monkeypatch.chdir(ROOT)
    shown = json.loads(run("sweep", "plan", path, "--out", tmp_path, "--format", "json").succeeded().out)
    assert len(shown["cells"]) == {"ablation": 30, "mechanisms": 50, "smoke": 8, "toys": 180}[path.stem]
    assert shown["name"] == path.stem
