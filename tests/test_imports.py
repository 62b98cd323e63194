"""Imports go one way, and a light verb imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sinkablate"
MAY_IMPORT = {
    "errors": set(),
    "config": {"errors"},
    "arguments": {"run_directory", "strict_yaml", "suggestions", "errors"},
    "strict_yaml": set(),
    "trainer_options": {"config", "cpus", "errors"},
    "reading_order": set(),
    "run_directory": {"reading_order", "provenance", "writing", "errors"},
    "provenance": set(),
    "writing": {"errors"},
    "memory": set(),
    "cpus": set(),
    "threads": {"cpus"},
    "compare": {"writing", "errors"},
    "report": {"run_directory", "compare", "strict_yaml", "config", "errors"},
    "reporting": {"report", "compare", "diagnose", "run_directory", "provenance", "writing", "errors"},
    "results": {"writing"},
    "trust": {"data", "report", "keys", "config", "errors"},
    "attention": {"config", "errors"},
    "vit": {"attention", "config", "errors"},
    "diagnostics": {"vit", "attention", "config", "errors"},
    "data": {"config", "cpus", "errors"},
    "loggers": {"run_directory", "writing", "config", "errors"},
    "programs": {"data", "tasks", "toys", "report", "vit", "strict_yaml", "errors"},
    "toys": {"data", "tasks", "diagnostics", "vit", "attention", "config", "errors"},
    "tasks": {"vit", "attention", "config", "errors"},
    "checkpoint_files": {"run_directory", "errors"},
    "checkpoints": {"run_directory", "errors"},
    "fsdp2": {"vit", "errors"},
    "job_script": set(),
    "estimate": set(),
    "run_arguments": {"callbacks", "checkpoints", "config", "programs"},
    "library_messages": set(),
    "trainer_command": {"cells", "cli", "fsdp2", "library_messages", "memory", "run_directory", "errors"},
    "early_checks": {"keys", "run_directory", "strict_yaml", "suggestions", "errors"},
    "keys": set(),
    "suggestions": set(),
    "streams": set(),
    "group_help": {"suggestions", "errors"},
    "summary": {"callbacks", "cli", "diagnostics", "memory"},
    "plan": {"cli", "estimate", "tasks", "data", "errors"},
    "preemption": set(),
    "cells": {"errors"},
    "sweep": {"arguments", "suggestions", "streams", "cells", "cli", "preemption", "run_directory", "strict_yaml",
              "trainer_command", "fsdp2", "library_messages", "programs", "config", "errors"},
    "slurm": {"errors"},
    "starting": {"run_directory", "checkpoint_files", "cells", "strict_yaml", "config", "errors"},
    "located": {"run_directory", "strict_yaml", "errors"},
    "callbacks": {"diagnostics", "vit", "loggers", "run_directory", "writing", "checkpoint_files", "memory",
                  "checkpoints", "preemption", "streams", "config", "errors"},
    "intervene": {"diagnose", "diagnostics", "vit", "attention", "data", "toys", "report", "run_directory",
                  "provenance", "writing", "threads", "config", "errors"},
    "diagnose": {"diagnostics", "vit", "data", "toys", "report", "run_directory", "checkpoint_files", "provenance",
                 "writing", "memory", "threads", "trust", "config", "errors"},
}
"""Room -> the other rooms it may know; `cli` and `__main__` may know all."""


def room(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Rooms of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sinkablate."):
            names.add(room(node.module))
        elif isinstance(node, ast.ImportFrom) and node.module == "sinkablate":
            names |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.Import):
            names |= {room(alias.name) for alias in node.names if alias.name.startswith("sinkablate.")}
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    here = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if here not in ("cli", "__main__", "__init__"):
        assert imports(path) - {here} <= MAY_IMPORT[here]


def loaded(*command: str) -> set[str]:
    """Top-level packages and rooms (`sinkablate.ROOM`) in `sys.modules` after `sinkablate COMMAND`."""
    code = ("import sys; from sinkablate.__main__ import main; "
            f"main({list(command)}); print(*sys.modules, file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600,
                          cwd=PACKAGE.parent)
    names = done.stderr.split()
    return {name.split(".")[0] for name in names} | {".".join(name.split(".")[:2]) for name in names}


HEAVY = {"torch", "lightning", "timm", "wandb", "torchvision", "polars", "matplotlib", "webdataset"}


def test_the_list_of_verbs_imports_nothing_but_python() -> None:
    assert not loaded("--help") & (HEAVY | {"numpy", "jsonargparse"})


@pytest.mark.parametrize("command", ["status", "retry"])
def test_looking_at_a_sweep_imports_no_framework(command: str, tmp_path: Path) -> None:
    sweep = PACKAGE.parent / "sweeps" / "ablation.yaml"
    assert not loaded("sweep", command, str(sweep), "--out", str(tmp_path)) & HEAVY


@pytest.mark.parametrize("command", ["fit --help", "plan --help", "fit configs/gate.yaml",
                                     "validate --config none.yaml", "fit --modle.backbone.name x"])
def test_help_and_first_checks_import_no_framework(command: str) -> None:
    assert not loaded(*command.split()) & (HEAVY | {"numpy", "jsonargparse", "rich"})


FOR_REPORTS = {"plotly", "pandas", "statsmodels", "sklearn"}


def test_fit_imports_nothing_of_other_tasks_and_commands() -> None:
    modules = loaded("fit", "--trainer.no_such_key", "1")  # the parser refuses it
    assert "torch" in modules
    assert not modules & (FOR_REPORTS | {f"sinkablate.{room}" for room in (
        "toys", "diagnose", "intervene", "compare", "sweep", "reporting", "plan")})


def test_diagnose_of_a_model_from_elsewhere_imports_no_trainer(tmp_path: Path) -> None:
    modules = loaded("diagnose", "--backbone.name", "no_such_model", "--images", str(tmp_path),
                     "--out", str(tmp_path / "out"))
    assert "torch" in modules
    assert not modules & (FOR_REPORTS | {"lightning", "torchmetrics", "transformers", "sinkablate.cli"})


def test_compare_imports_no_framework(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,seed,m\n0,0,1\n1,0,2\n0,1,2\n1,1,4\n")
    assert not loaded("compare", str(tmp_path / "runs.csv"), "--metric=m", "--factors=a") & (HEAVY - {"polars"})


def test_shards_imports_no_framework(tmp_path: Path) -> None:
    assert not loaded("shards", str(tmp_path / "nothing"), str(tmp_path / "set")) & HEAVY


def test_the_help_of_report_imports_nothing_heavy() -> None:
    code = "from sinkablate.reporting import report; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert not {name.split(".")[0] for name in done.stdout.split()} & (HEAVY | {"plotly", "pandas", "scipy"})
