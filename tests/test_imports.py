"""Imports go one way, and light commands import nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "sinkablate"
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "process": {"errors"},
    "config": {"files", "errors"},
    "attention": {"config", "errors"},
    "vit": {"attention", "config", "files", "errors"},
    "distributed": {"errors"},
    "diagnostics": {"vit", "attention", "config", "errors"},
    "data": {"config", "process", "files", "errors"},
    "run": {"data", "config", "process", "files", "errors"},
    "figures": set(),
    "compare": {"config", "files", "errors"},
    "loggers": {"run", "files", "config", "errors"},
    "tasks": {"distributed", "vit", "attention", "config", "errors"},
    "toys": {"data", "tasks", "diagnostics", "vit", "attention", "config", "errors"},
    "callbacks": {
        "distributed",
        "diagnostics",
        "vit",
        "figures",
        "loggers",
        "run",
        "files",
        "process",
        "config",
        "errors",
    },
    "report": {
        "toys",
        "intervene",
        "diagnose",
        "diagnostics",
        "figures",
        "compare",
        "run",
        "files",
        "config",
        "errors",
    },
    "diagnose": {"toys", "diagnostics", "vit", "figures", "data", "run", "files", "process", "config", "errors"},
    "evaluate": {
        "diagnose",
        "diagnostics",
        "vit",
        "attention",
        "figures",
        "data",
        "distributed",
        "run",
        "files",
        "process",
        "config",
        "errors",
    },
    "intervene": {
        "diagnose",
        "toys",
        "diagnostics",
        "vit",
        "attention",
        "figures",
        "data",
        "run",
        "files",
        "process",
        "config",
        "errors",
    },
    "export": {"diagnose", "diagnostics", "vit", "run", "files", "config", "errors"},
    "cli": {
        "callbacks",
        "toys",
        "tasks",
        "distributed",
        "diagnostics",
        "vit",
        "figures",
        "loggers",
        "data",
        "run",
        "files",
        "process",
        "config",
        "errors",
    },
    "api": {
        "compare",
        "evaluate",
        "intervene",
        "diagnose",
        "diagnostics",
        "vit",
        "data",
        "run",
        "files",
        "config",
        "errors",
    },
    "plan": {"cli", "callbacks", "tasks", "diagnostics", "vit", "data", "run", "files", "process", "config", "errors"},
    "sweep": {"plan", "evaluate", "cli", "distributed", "run", "files", "process", "config", "errors"},
}
"""Folder -> the other folders it may import; `__init__` and `__main__` may import all."""


def folder_of(module: str) -> str:
    """Folder of the package that contains a module."""
    return module.split(".")[1]


def imports(path: Path) -> set[str]:
    """Folders of the package that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sinkablate."):
            names.add(folder_of(node.module))
        elif isinstance(node, ast.ImportFrom) and node.module == "sinkablate":
            names |= {alias.name for alias in node.names if not alias.name.startswith("__")}
        elif isinstance(node, ast.Import):
            names |= {folder_of(alias.name) for alias in node.names if alias.name.startswith("sinkablate.")}
    return names


def test_imports_go_one_way() -> None:
    upward = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        folder = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if folder not in ("__main__", "__init__"):
            upward[str(path.relative_to(PACKAGE))] = imports(path) - {folder} - MAY_IMPORT[folder]
    assert {name: folders for name, folders in upward.items() if folders} == {}


def loaded(*command: str) -> set[str]:
    """Top-level packages and folders (`sinkablate.FOLDER`) in `sys.modules` after `sinkablate COMMAND`."""
    code = (
        f"import sys; from sinkablate.__main__ import main; main({list(command)}); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600, cwd=PACKAGE.parent
    )
    names = done.stderr.split()
    return {name.split(".")[0] for name in names} | {".".join(name.split(".")[:2]) for name in names}


HEAVY = {"torch", "lightning", "timm", "wandb", "torchvision", "polars", "matplotlib", "webdataset"}


def test_the_list_of_commands_imports_only_the_standard_library() -> None:
    assert not loaded("--help") & (HEAVY | {"numpy", "jsonargparse"})


@pytest.mark.parametrize("command", ["status", "retry"])
def test_the_status_of_a_sweep_imports_no_framework(command: str, tmp_path: Path) -> None:
    sweep = PACKAGE.parent / "sweeps" / "ablation.yaml"
    assert not loaded("sweep", command, str(sweep), "--out", str(tmp_path)) & HEAVY


@pytest.mark.parametrize(
    "command",
    [
        "fit --help",
        "plan --help",
        "fit configs/gate.yaml",
        "validate --config none.yaml",
        "fit --modle.backbone.name x",
    ],
)
def test_help_and_early_checks_import_no_framework(command: str) -> None:
    assert not loaded(*command.split()) & (HEAVY | {"numpy", "jsonargparse", "rich"})


FOR_REPORTS = {"plotly", "pandas", "statsmodels", "sklearn"}


def test_fit_imports_nothing_of_other_tasks_and_commands() -> None:
    modules = loaded("fit", "--trainer.no_such_key", "1")  # the parser refuses it
    assert "torch" in modules
    assert not modules & (
        FOR_REPORTS
        | {
            f"sinkablate.{folder}"
            for folder in ("toys", "diagnose", "intervene", "compare", "sweep", "reporting", "plan")
        }
    )


def test_diagnosing_a_timm_model_imports_no_trainer(tmp_path: Path) -> None:
    modules = loaded(
        "diagnose", "--backbone.name", "no_such_model", "--images", str(tmp_path), "--out", str(tmp_path / "out")
    )
    assert "torch" in modules
    assert not modules & (FOR_REPORTS | {"lightning", "torchmetrics", "transformers", "sinkablate.cli.lightning"})


def test_compare_imports_no_framework(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text("a,seed,m\n0,0,1\n1,0,2\n0,1,2\n1,1,4\n")
    assert not loaded("compare", str(tmp_path / "runs.csv"), "--metric=m", "--factors=a") & (HEAVY - {"polars"})


def test_shards_imports_no_framework(tmp_path: Path) -> None:
    assert not loaded("shards", str(tmp_path / "nothing"), str(tmp_path / "set")) & HEAVY


def test_the_help_of_report_imports_nothing_heavy() -> None:
    code = "from sinkablate.report.command import report; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert not {name.split(".")[0] for name in done.stdout.split()} & (HEAVY | {"plotly", "pandas", "scipy"})
