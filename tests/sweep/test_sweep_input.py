"""What people write into sweep files and behind `sweep`: a mistake is one line and nothing is written."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS, ROOT, fit, run
from sweeping import content, opened, root_of, sweep, written

from sinkablate.run.cells import Cell, cell_id, config_names, configs_first, variant_name
from sinkablate.sweep.state import DONE

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


def cells_of(path: Path) -> list[Path]:
    return [root_of(path) / cell.id for cell in opened(path).cells]


def beside(name: str, said: bytes) -> Callable[[Path], None]:
    """A file in the directory of the sweep."""

    def make(path: Path) -> None:
        root_of(path).mkdir()
        (root_of(path) / name).write_bytes(said)

    return make


def in_each_cell(name: str, said: str) -> Callable[[Path], None]:
    """A file in the directory of every cell."""

    def make(path: Path) -> None:
        for run_dir in cells_of(path):
            run_dir.mkdir(parents=True)
            (run_dir / DONE).touch()
            (run_dir / name).write_text(said)

    return make


def file_as_root(path: Path) -> None:
    root_of(path).touch()


def files_as_cells(path: Path) -> None:
    root_of(path).mkdir()
    for run_dir in cells_of(path):
        run_dir.touch()


def folder_as_mark(path: Path) -> None:
    for run_dir in cells_of(path):
        (run_dir / "FAILED").mkdir(parents=True)


DAMAGED: dict[str, tuple[Callable[[Path], None], tuple[str, ...], str]] = {
    "configs cut off": (beside("configs.json", b'{"a": '), ("plan",), "configs.json: damaged"),
    "configs as a list": (beside("configs.json", b"[1]"), ("plan",), "configs.json: damaged"),
    "configs nested deeply": (beside("configs.json", b"[" * 100_000), ("plan",), "configs.json: damaged"),
    "configs that are not text": (beside("configs.json", b"\xff\xfe\x00"), ("run",), "configs.json: damaged"),
    "jobs cut off": (beside("submitted.json", b"{"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "jobs as a list": (beside("submitted.json", b"[1]"), ("submit", "--dry_run"), "submitted.json: damaged"),
    "a summary cut off": (in_each_cell("summary.json", "{"), ("collect",), "summary.json: cannot be read"),
    "a summary as a list": (in_each_cell("summary.json", "[1]"), ("collect",), "summary.json: cannot be read"),
    "a summary nested deeply": (in_each_cell("summary.json", "[" * 100_000), ("collect",), "summary.json: cannot"),
    "a file as directory of the sweep": (file_as_root, ("status",), "not a directory"),
    "a file where a cell is to be trained": (files_as_cells, ("run", "--in_process", "--jobs", "1"), "File exists"),
    "a folder in place of a mark": (folder_as_mark, ("retry",), "FAILED: Is a directory"),
}


@pytest.mark.parametrize(("make", "args", "said"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_directory_is_one_line(
    make: Callable[[Path], None], args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    make(path)
    outcome = sweep(args[0], path, *args[1:])
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert str(root_of(path)) in line
    assert said in line


def test_a_damaged_note_of_the_last_check_is_written_anew(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    beside("checked.txt", b"\xff\xfe\x00")(path)
    sweep("plan", path).succeeded()
    assert (root_of(path) / "checked.txt").read_text().isalnum()


ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "no directory": (("plan", "--out", ""), "out=''"),
    "a line break in the directory": (("plan", "--out", "a\nb"), "out='a\\nb'"),
    "a long directory": (("status", "--out", "x" * 300), "name too long"),
    "another format": (("status", "--format", "xml"), "format"),
    "jobs as a word": (("run", "--jobs", "many"), "jobs=many"),
    "no table": (("collect", "--results", ""), "results=: must end with"),
    "an unknown option": (("plan", "--nothing", "1"), "--nothing"),
}


@pytest.mark.parametrize(("args", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_wrong_argument_is_one_line(
    args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, content())
    outcome = run("sweep", args[0], path, *args[1:])
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../..", "a/b", "", "a b", ".", "x" * 101, "-x"])
def test_fit_refuses_a_sweep_that_names_no_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = fit(tmp_path / "run", f"--sweep={name}")
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith("error: sweep")
    assert not list(tmp_path.iterdir())


def test_identities_are_those_of_earlier_versions() -> None:
    words = [
        "--config=configs/baseline.yaml",
        "--trainer.max_epochs=2",
        "--model.backbone.attention.gate=headwise",
        "--model.backbone.registers=4",
        "--seed_everything=1",
    ]
    assert cell_id(words) == "b360a0edefcb"


def test_a_swept_config_overrides_no_other_key(tmp_path: Path) -> None:
    path = written(tmp_path, content({"seed_everything": {"values": [0, 1]}, "config": {"values": [RELU]}}))
    cell = opened(path).cells[1]
    assert cell.words[:2] == (f"--config={BASELINE}", f"--config={RELU}")
    agent = ["--config", BASELINE, "--variant", "a", "--sweep", "small", f"--config={RELU}", "--x=-1"]
    assert configs_first(agent) == [
        "--config",
        BASELINE,
        f"--config={RELU}",
        "--variant",
        "a",
        "--sweep",
        "small",
        "--x=-1",
    ]


def test_configs_of_one_name_are_told_apart() -> None:
    assert config_names(["a/x.yaml", "b/y.yaml"]) == {"a/x.yaml": "x", "b/y.yaml": "y"}
    assert config_names(["a/x.yaml", "b/x.yaml"]) == {"a/x.yaml": "a/x", "b/x.yaml": "b/x"}
    assert config_names(["x.yaml", "x.yml"]) == {"x.yaml": "x.yaml", "x.yml": "x.yml"}


def test_names_stay_short() -> None:
    names = {variant_name([f"--model.backbone.checkpoint=/{'x' * 300}{end}"], "baseline") for end in "ab"}
    assert len(names) == 2
    assert max(map(len, names)) <= 100
    label = Cell((), {"model.backbone.checkpoint": "x" * 300, "seed_everything": "0"}).label
    assert len(label) < 130
    assert label.endswith("… s0")


def test_cells_that_differ_in_their_threads_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    in_each_cell("summary.json", '{"threads": 1}')(path)
    assert "note:" not in sweep("status", path).succeeded().out
    (cells_of(path)[0] / "summary.json").write_text('{"threads": 2, "val/acc1": 0.5}')
    assert "threads (3 with 1, 1 with 2)" in sweep("status", path).succeeded().out
    shown = json.loads(sweep("status", path, "--format", "json").succeeded().out)
    assert [cell["threads"] for cell in shown] == [2, 1, 1, 1]
    sweep("collect", path).succeeded()
    assert ",threads" in (root_of(path) / "results.csv").read_text().splitlines()[0]


@pytest.mark.parametrize(("most", "counts"), [(3, [3, 1]), (2, [2, 2]), (1001, [4])])
def test_an_array_is_cut_where_slurm_takes_no_more(
    most: int, counts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho 'MaxArraySize            = {most}'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    lines = sweep("submit", path, "--dry_run").succeeded().out.splitlines()
    arrays = [line for line in lines if line.startswith("sbatch")]
    assert len(arrays) == len(counts)
    for number, (line, count) in enumerate(zip(arrays, counts, strict=True)):
        assert f"--array=0-{count - 1} " in line
        assert line.split()[-3:-1] == [str(count), str(root_of(path) / f"cells-{number}.txt")]
    assert len(lines) - len(arrays) == 4
