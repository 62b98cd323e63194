"""Invalid sweep files are refused in one line and nothing is written; unusual valid ones are read."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS, assert_refused
from sweeping import content, sweep, written

BASELINE, RELU = str(CONFIGS / "baseline.yaml"), str(CONFIGS / "relu.yaml")


HEAD = "name: small\nmethod: grid\ncommand: [python, -m, sinkablate, fit, --sweep, small, '${args}']\n"


def over(key: str, *values: Any) -> dict[str, Any]:
    """Content of a sweep over one key."""
    return content({key: {"values": list(values)}})


def with_args(*args: Any) -> dict[str, Any]:
    """Content of a sweep with additional arguments at the end of its command."""
    default = content()
    return default | {"command": [*default["command"][:-1], *args, default["command"][-1]]}


WRONG: dict[str, tuple[dict[str, Any] | str | bytes, str]] = {
    # duplicate runs
    "one number in two spellings": (over("model.optim.lr", "1e-3", "0.001"), "1e-3 and 0.001 are the same value"),
    "an int in place of a float": (over("model.optim.lr", "1", "1.0"), "1 and 1.0 are the same value"),
    "true in two spellings": (over("diagnostics.heatmap", True, "true"), "True and true are the same value"),
    "null in two spellings": (over("model.backbone.registers", "null", "~"), "null and ~ are the same value"),
    "one seed in two spellings": (over("seed_everything", "1", "+1"), "1 and +1 are the same value"),
    "one group in two spellings": (over("model.backbone.attention", "{gate: none}", "{gate: 'none'}"), "same value"),
    "one config in two spellings": (over("config", BASELINE, f"{CONFIGS}/./baseline.yaml"), "are the same value"),
    "one config by a relative path": (over("config", BASELINE, os.path.relpath(BASELINE)), "are the same value"),
    "one value twice among many": (
        over("model.optim.lr", *(f"1e-{power}" for power in range(3, 9)), "1e-5"),
        "the value 1e-5 is repeated",
    ),
    # characters
    "a line break": (over("variant", "a\nb"), "control character"),
    "a carriage return": (over("variant", "a\rb"), "control character"),
    "a tab": (over("variant", "a\tb"), "control character"),
    "a NUL character": (over("variant", "a\x00b"), "control character"),
    "an escape character": (over("variant", "\x1b[2J"), "control character"),
    "a delete character": (over("variant", "a\x7f"), "control character"),
    "a line separator": (over("variant", "a\u2028b"), "control character"),
    "a line break in the command": (with_args("--variant=a\nb"), "control character"),
    "a line break in the project": (content() | {"project": "a\nb"}, "project"),
    "quotes in a name": (over("variant", "a'b\"c"), "variant=a'b\"c"),
    "a slash in a name": (over("variant", "../../a"), "variant=../../a"),
    "an option as a name": (over("variant", "--overwrite"), "variant=--overwrite"),
    # names
    "a name with a path": (content() | {"name": "../x"}, "name='../x'"),
    "a name that is a number": (content() | {"name": 3}, "name=3"),
    "an empty name": (content() | {"name": ""}, "name=''"),
    "a long name": (content() | {"name": "x" * 101}, "at most 100"),
    "a list as a name": (content() | {"name": ["small"]}, "name=['small']"),
    "a list as a project": (content() | {"project": ["a"]}, "project"),
    # keys
    "a hyphen in a key": (over("model.optim.weight-decay", 0.1), "weight-decay: not a key"),
    "a space in a key": (over("model.optim.lr x", 0.1), "not a key"),
    "a value in a key": (over("model.optim.lr=3", 1), "not a key"),
    "dashes before a key": (over("--model.optim.lr", 1), "not a key"),
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
    "the short form of config": (over("c", BASELINE), "--c"),
    "help as a key": (over("help", 1), "help"),
    "a key that the run sets": (over("trainer.logger", "false"), "trainer.logger: the run sets it itself"),
    # values
    "not a number": (over("model.optim.lr", float("nan")), "model.optim.lr"),
    "infinity": (over("model.optim.lr", float("inf")), "model.optim.lr"),
    "an empty value": (over("model.optim.lr", ""), "model.optim.lr"),
    "a wrong value among many": (over("model.optim.lr", *(0.001 * k for k in range(1, 40)), "fast"), "lr=fast"),
    "an impossible value among many": (over("model.optim.lr", *(0.001 * k for k in range(1, 40)), -1), "lr=-1"),
    "an impossible pair among many": (
        content({"model.optim.lr": {"values": [1e-3, 1e-2]}, "model.optim.min_lr": {"values": [0, 1e-4, 5e-3]}}),
        "lr=0.001 min_lr=0.005",
    ),
    "half a seed": (over("seed_everything", 0, 1.5), "s1.5"),
    "a seed too large": (over("seed_everything", 0, 2**32), "seed_everything=4294967296: must be"),
    "an unknown task": (over("task", "classify", "segment"), "task=segment"),
    "an undefined reference": (over("variant", "${nothing.here}"), "nothing.here"),
    "bytes": (f"{HEAD}parameters: {{variant: {{values: [!!binary aGVsbG8=]}}}}", "put quotes"),
    "a set": (f"{HEAD}parameters: {{variant: {{values: !!set {{a}}}}}}", "must be a non-empty list"),
    "an impossible date": (f"{HEAD}parameters: {{variant: {{values: [2024-13-45]}}}}", "not YAML: month"),
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
    "a folder as a config": (over("config", str(CONFIGS)), "no such file"),
    "a config with a long name": (over("config", "x" * 3000), "name too long"),
    # the command
    "an argument without a key": (
        with_args("--variant=a", "configs/relu.yaml"),
        "'configs/relu.yaml' does not belong to a key",
    ),
    "a superfluous argument": (with_args("--variant", "a", "b"), "'b' does not belong to a key"),
    "a null in the command": (with_args("--variant", None), '"null"'),
    "a list in the command": (with_args(["a"]), "put quotes"),
    "a command that is text": (content() | {"command": "python -m sinkablate fit ${args}"}, "command must be"),
    # the file
    "text of another encoding": ("name: größe".encode("latin-1"), "not a text file"),
    "UTF-16": ("name: small".encode("utf-16"), "not a text file"),
    "an empty file": ("", "not a sweep"),
    "two documents": ("a: 1\n---\nb: 2\n", "not YAML"),
    "unclosed brackets": (f"a: {'[' * 500}", "not YAML"),
    "a Python object": ("name: !!python/object/apply:os.getcwd []\n", "not YAML"),
}


def write(file_content: dict[str, Any] | str | bytes, folder: Path) -> Path:
    """Write a sweep file; returns its path."""
    if isinstance(file_content, dict):
        return written(folder, file_content)
    path = folder / "small.yaml"
    path.write_bytes(file_content if isinstance(file_content, bytes) else file_content.encode())
    return path


@pytest.mark.parametrize(("file_content", "message"), WRONG.values(), ids=WRONG)
def test_an_invalid_file_is_refused_in_one_line(
    file_content: dict[str, Any] | str | bytes, message: str, tmp_path: Path
) -> None:
    path = write(file_content, tmp_path)
    assert_refused(sweep("plan", path), message)
    assert list(tmp_path.iterdir()) == [path]


RIGHT: dict[str, tuple[dict[str, Any] | str, int]] = {
    "one batch, and all of them": (over("trainer.limit_val_batches", "1", "1.0"), 2),
    "letters of any language": (over("variant", "größe", "大きさ"), 2),
    "a long value": (over("model.backbone.checkpoint", "/x" * 1000), 1),
    "keys from a YAML merge": (f"{HEAD}metric: &more {{values: [a, b]}}\nparameters: {{variant: {{<<: *more}}}}", 2),
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


@pytest.mark.parametrize(("file_content", "count"), RIGHT.values(), ids=RIGHT)
def test_an_unusual_file_is_read(file_content: dict[str, Any] | str, count: int, tmp_path: Path) -> None:
    outcome = sweep("plan", write(file_content, tmp_path), "--format", "json").succeeded()
    assert len({cell["id"] for cell in json.loads(outcome.out)["cells"]}) == count


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
