"""Sweep files that are refused in one line, and unusual ones that are read; a refusal writes nothing."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS
from sweeping import content, sweep, written

BASELINE, RELU = str(CONFIGS / "baseline.yaml"), str(CONFIGS / "relu.yaml")


HEAD = "name: small\nmethod: grid\ncommand: [python, -m, sinkablate, fit, --sweep, small, '${args}']\n"


def values(key: str, *found: Any) -> dict[str, Any]:
    """A sweep over one key."""
    return content({key: {"values": list(found)}})


def words(*more: Any) -> dict[str, Any]:
    """A sweep with more words at the end of its command."""
    made = content()
    return made | {"command": [*made["command"][:-1], *more, made["command"][-1]]}


WRONG: dict[str, tuple[dict[str, Any] | str | bytes, str]] = {
    # one run twice
    "one number in two spellings": (values("model.optim.lr", "1e-3", "0.001"), "1e-3 and 0.001 are the same value"),
    "an int where a float is meant": (values("model.optim.lr", "1", "1.0"), "1 and 1.0 are the same value"),
    "true in two spellings": (values("diagnostics.heatmap", True, "true"), "True and true are the same value"),
    "null in two spellings": (values("model.backbone.registers", "null", "~"), "null and ~ are the same value"),
    "one seed in two spellings": (values("seed_everything", "1", "+1"), "1 and +1 are the same value"),
    "one group in two spellings": (values("model.backbone.attention", "{gate: none}", "{gate: 'none'}"), "same value"),
    "one config in two spellings": (values("config", BASELINE, f"{CONFIGS}/./baseline.yaml"), "are the same value"),
    "one config seen from here": (values("config", BASELINE, os.path.relpath(BASELINE)), "are the same value"),
    "one value twice among many": (
        values("model.optim.lr", *(f"1e-{power}" for power in range(3, 9)), "1e-5"),
        "the value 1e-5 is repeated",
    ),
    # characters
    "a line break": (values("variant", "a\nb"), "control character"),
    "a carriage return": (values("variant", "a\rb"), "control character"),
    "a tab": (values("variant", "a\tb"), "control character"),
    "a NUL": (values("variant", "a\x00b"), "control character"),
    "an escape": (values("variant", "\x1b[2J"), "control character"),
    "a delete": (values("variant", "a\x7f"), "control character"),
    "a line separator": (values("variant", "a\u2028b"), "control character"),
    "a line break in the command": (words("--variant=a\nb"), "control character"),
    "a line break in the project": (content() | {"project": "a\nb"}, "project"),
    "quotes in a name": (values("variant", "a'b\"c"), "variant=a'b\"c"),
    "a slash in a name": (values("variant", "../../a"), "variant=../../a"),
    "an option as a name": (values("variant", "--overwrite"), "variant=--overwrite"),
    # names
    "a name that leads elsewhere": (content() | {"name": "../x"}, "name='../x'"),
    "a name that is a number": (content() | {"name": 3}, "name=3"),
    "an empty name": (content() | {"name": ""}, "name=''"),
    "a long name": (content() | {"name": "x" * 101}, "at most 100"),
    "a list as a name": (content() | {"name": ["small"]}, "name=['small']"),
    "a list as a project": (content() | {"project": ["a"]}, "project"),
    # keys
    "a hyphen in a key": (values("model.optim.weight-decay", 0.1), "weight-decay: not a key"),
    "a space in a key": (values("model.optim.lr x", 0.1), "not a key"),
    "a value in a key": (values("model.optim.lr=3", 1), "not a key"),
    "dashes before a key": (values("--model.optim.lr", 1), "not a key"),
    "a number as a key": (f"{HEAD}parameters: {{1: {{values: [1]}}}}", "not a key"),
    "yes as a key": (f"{HEAD}parameters: {{yes: {{values: [1]}}}}", "not a key"),
    "a group and one of its keys": (
        content(
            {
                "model.backbone.attention": {"values": ["{gate: none}"]},
                "model.backbone.attention.gate": {"values": ["none"]},
            }
        ),
        "only one of",
    ),
    "the short form of config": (values("c", BASELINE), "--c"),
    "help as a key": (values("help", 1), "help"),
    "a key that the run sets": (values("trainer.logger", "false"), "trainer.logger: the run sets it itself"),
    # values
    "not a number": (values("model.optim.lr", float("nan")), "model.optim.lr"),
    "infinity": (values("model.optim.lr", float("inf")), "model.optim.lr"),
    "an empty value": (values("model.optim.lr", ""), "model.optim.lr"),
    "a wrong value among many": (values("model.optim.lr", *(0.001 * k for k in range(1, 40)), "fast"), "lr=fast"),
    "a senseless value among many": (values("model.optim.lr", *(0.001 * k for k in range(1, 40)), -1), "lr=-1"),
    "a senseless pair among many": (
        content({"model.optim.lr": {"values": [1e-3, 1e-2]}, "model.optim.min_lr": {"values": [0, 1e-4, 5e-3]}}),
        "lr=0.001 min_lr=0.005",
    ),
    "half a seed": (values("seed_everything", 0, 1.5), "s1.5"),
    "a seed too large": (values("seed_everything", 0, 2**32), "seed_everything=4294967296: must be"),
    "a task that is not there": (values("task", "classify", "segment"), "task=segment"),
    "a reference to nothing": (values("variant", "${nothing.here}"), "nothing.here"),
    "bytes": (f"{HEAD}parameters: {{variant: {{values: [!!binary aGVsbG8=]}}}}", "put quotes"),
    "a set": (f"{HEAD}parameters: {{variant: {{values: !!set {{a}}}}}}", "must be a non-empty list"),
    "a date that is none": (f"{HEAD}parameters: {{variant: {{values: [2024-13-45]}}}}", "not YAML: month"),
    "a number of 5,000 digits": (f"{HEAD}parameters: {{variant: {{values: [{'9' * 5000}]}}}}", "not YAML"),
    "a million cells": (
        content(
            {
                "seed_everything": {"values": list(range(1000))},
                "model.optim.lr": {"values": [k * 1e-6 for k in range(1, 1001)]},
            }
        ),
        "1,000,000 cells; a sweep can have at most 50,000",
    ),
    # configs
    "a folder as a config": (values("config", str(CONFIGS)), "no such file"),
    "a config with a long name": (values("config", "x" * 3000), "name too long"),
    # the command
    "a word of no key": (words("--variant=a", "configs/relu.yaml"), "'configs/relu.yaml' does not belong to a key"),
    "a word too many": (words("--variant", "a", "b"), "'b' does not belong to a key"),
    "a null in the command": (words("--variant", None), '"null"'),
    "a list in the command": (words(["a"]), "put quotes"),
    "a command that is text": (content() | {"command": "python -m sinkablate fit ${args}"}, "command must be"),
    # the file
    "text of another encoding": ("name: größe".encode("latin-1"), "not a text file"),
    "UTF-16": ("name: small".encode("utf-16"), "not a text file"),
    "an empty file": ("", "not a sweep"),
    "two documents": ("a: 1\n---\nb: 2\n", "not YAML"),
    "brackets without end": (f"a: {'[' * 500}", "not YAML"),
    "a Python object": ("name: !!python/object/apply:os.getcwd []\n", "not YAML"),
}


def written_as(made: dict[str, Any] | str | bytes, folder: Path) -> Path:
    """A sweep file of that content."""
    if isinstance(made, dict):
        return written(folder, made)
    path = folder / "small.yaml"
    path.write_bytes(made if isinstance(made, bytes) else made.encode())
    return path


@pytest.mark.parametrize(("made", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_line(made: dict[str, Any] | str | bytes, said: str, tmp_path: Path) -> None:
    path = written_as(made, tmp_path)
    outcome = sweep("plan", path)
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == [path]


RIGHT: dict[str, tuple[dict[str, Any] | str, int]] = {
    "one batch, and all of them": (values("trainer.limit_val_batches", "1", "1.0"), 2),
    "letters of any language": (values("variant", "größe", "大きさ"), 2),
    "a long value": (values("model.backbone.checkpoint", "/x" * 1000), 1),
    "keys by a merge": (f"{HEAD}metric: &more {{values: [a, b]}}\nparameters: {{variant: {{<<: *more}}}}", 2),
    "a date": (f"{HEAD}parameters: {{variant: {{values: [2024-01-01]}}}}", 1),
    "configs and groups": (
        content(
            {
                "config": {"values": [BASELINE, RELU]},
                "model.optim": {"values": ["{lr: 1e-3}", "{lr: 2e-3}"]},
                "seed_everything": {"values": [0, 1]},
            }
        ),
        8,
    ),
}


@pytest.mark.parametrize(("made", "count"), RIGHT.values(), ids=RIGHT)
def test_an_unusual_file_is_read(made: dict[str, Any] | str, count: int, tmp_path: Path) -> None:
    shown = sweep("plan", written_as(made, tmp_path), "--format", "json").succeeded()
    assert len({cell["id"] for cell in json.loads(shown.out)["cells"]}) == count


def test_every_combination_of_two_thousand_cells_is_checked(tmp_path: Path) -> None:
    rates = [round(k * 1e-5, 6) for k in range(1, 201)]
    axes = {
        "model.optim.lr": {"values": rates},
        "model.optim.min_lr": {"values": [0, 1e-5]},
        "seed_everything": {"values": list(range(5))},
    }
    sweep("plan", written(tmp_path, content(axes)), "--format", "json").succeeded()
    axes["model.optim.min_lr"] = {"values": [0, 1.5e-5]}  # above the first of 200 learning rates
    outcome = sweep("plan", written(tmp_path, content(axes)))
    assert outcome.code == 2
    assert "lr=1e-05 min_lr=1.5e-05 s0: model.optim.min_lr" in outcome.err
