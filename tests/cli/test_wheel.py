"""An installed wheel: shipped configs and sweeps are found by name from any folder, without a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from running import CONFIGS, QUICK, run

from sinkablate.files.shipped import checkout_path, find_shipped, shipped_names, shipped_root
from sinkablate.run.cells import cell_id
from sinkablate.sweep.grid import read_sweep

ROOT = CONFIGS.parent


@pytest.mark.parametrize("name", ["gate_reg", "gate_reg.yaml", "configs/gate_reg.yaml"])
def test_a_shipped_config_is_found_from_any_folder(name: str, empty_folder: Path) -> None:
    assert find_shipped("configs", name) == str(CONFIGS / "gate_reg.yaml")


def test_a_config_in_the_checkout_keeps_its_short_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert find_shipped("configs", "toy/nop") == "configs/toy/nop.yaml"


def test_a_file_takes_precedence_over_a_shipped_config(empty_folder: Path) -> None:
    Path("gate_reg").write_text("variant: mine\n")
    outcome = run("fit", "--config", "gate_reg", "--print_config").succeeded()
    assert yaml.safe_load(outcome.out)["variant"] == "mine"


@pytest.mark.parametrize("name", ["../pyproject.toml", "toy", "", "configs/../configs/gate.yaml", "ablation"])
def test_no_other_name_is_found(name: str, empty_folder: Path) -> None:
    assert find_shipped("configs", name) is None


def test_every_shipped_config_and_sweep_has_a_name() -> None:
    assert {f"{name}.yaml" for name in shipped_names("configs")} == {
        path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml")
    }
    paper = ["mixed", "pathway_arms", "stability", "sweep", "table1", "toys_gamma", "toys_p", "toys_registers"]
    names = ["ablation", "dense", "mechanisms", *(f"paper/{name}" for name in paper), "smoke", "toys"]
    assert shipped_names("sweeps") == names


def test_a_name_and_a_path_give_the_same_config(empty_folder: Path) -> None:
    by_name = run("fit", "-c", "gate_reg", "--config=data/embedded", "--print_config").succeeded().out
    paths = [str(CONFIGS / "gate_reg.yaml"), str(CONFIGS / "data" / "embedded.yaml")]
    assert by_name == run("fit", "-c", paths[0], "--config", paths[1], "--print_config").succeeded().out


def test_a_cell_does_not_depend_on_the_folder_of_the_configs(empty_folder: Path) -> None:
    paths = ("configs/gate.yaml", str(CONFIGS / "gate.yaml"))
    ids = {cell_id([f"--config={path}", "--seed_everything=1"]) for path in paths}
    assert len(ids) == 1
    assert checkout_path("gate.yaml") == "gate.yaml"  # the user's own file


@pytest.mark.parametrize("name", ["ablation", "toys"])
def test_a_sweep_has_the_same_cells_in_any_folder(
    name: str, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = json.loads(run("sweep", "status", name, "--format", "json").succeeded().out)
    monkeypatch.chdir(ROOT)
    assert [(cell.id, cell.label) for cell in read_sweep(Path("sweeps", f"{name}.yaml")).cells] == [
        (cell["id"], cell["label"]) for cell in cells
    ]


def test_a_sweep_file_may_name_shipped_configs(empty_folder: Path) -> None:
    command = ["sinkablate", "fit", "--config", "baseline", "--sweep", "mine", "${args}"]
    content = {"name": "mine", "method": "grid", "command": command}
    Path("mine.yaml").write_text(yaml.safe_dump(content | {"parameters": {"config": {"values": ["gate", "toy/nop"]}}}))
    first, second = read_sweep(Path("mine.yaml")).cells
    assert (first.label, second.label) == ("gate", "nop")
    baseline, gate = CONFIGS / "baseline.yaml", CONFIGS / "gate.yaml"
    assert first.words == (f"--config={baseline}", f"--config={gate}")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("fit", "--config", "gate_rg"), "config=gate_rg: no such file; did you mean gate_reg?"),
        (("plan", "--config", "xyz"), "config=xyz: no such file; `sinkablate fit --help` lists the shipped configs"),
        (("sweep", "plan", "ablaton"), "ablaton: no such file; did you mean ablation?"),
    ],
)
def test_an_unknown_name_is_corrected(args: tuple[str, ...], message: str, empty_folder: Path) -> None:
    refused = run(*args)
    assert (refused.code, refused.err) == (2, f"error: {message}\n")


def test_a_sweep_is_submitted_from_any_folder(empty_folder: Path) -> None:
    lines = run("sweep", "submit", "smoke", "--dry_run").succeeded().out.splitlines()
    assert lines[0].startswith(f"sbatch --parsable --array=0-7 {shipped_root()}/slurm/sweep.sbatch 8 ")
    assert lines[0].endswith(f"{shipped_root()}/slurm")
    assert len(lines) == 9


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder into which the wheel is installed without its dependencies, which come from this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("sinkablate", "configs", "sweeps", "slurm"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, str(folder / "site"), str(source)], check=True, timeout=600)
    return folder / "site"


def run_installed(site: Path, cwd: Path, *args: str) -> str:
    """Run `python -m sinkablate ARGS` with the installed wheel in an empty folder; `-S -I` hides the checkout."""
    cwd.mkdir(parents=True, exist_ok=True)
    code = (
        f"import sys; sys.path[:0] = [{str(site)!r}, {sysconfig.get_path('purelib')!r}]; "
        f"from sinkablate.__main__ import main; import sinkablate; "
        f"assert sinkablate.__file__.startswith({str(site)!r}); sys.exit(main({list(args)!r}))"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(cwd), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_contains_every_module_and_every_shipped_file(installed: Path) -> None:
    def listed(folder: Path, pattern: str) -> set[str]:
        return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}

    package = installed / "sinkablate"
    for folder in ("configs", "sweeps"):
        assert listed(package / "shipped" / folder, "*.yaml") == listed(ROOT / folder, "*.yaml")
    assert {*listed(package / "shipped" / "slurm", "*.s*")} == {
        "evaluate.sbatch",
        "fit.sbatch",
        "sweep.sbatch",
        "site.sh",
    }
    source = {path for path in listed(ROOT / "sinkablate", "*") if "__pycache__" not in path}
    assert source <= listed(package, "*")


@pytest.mark.heavy
def test_the_wheel_works_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    args = ("--config", "gate_reg", *QUICK)
    assert "run directory: runs/vit_mini-gate_reg-s0" in run_installed(installed, tmp_path, "fit", *args)
    stored = yaml.safe_load((tmp_path / "runs" / "vit_mini-gate_reg-s0" / "config.yaml").read_text())
    assert stored["model"]["backbone"]["registers"] == 4
    cells = json.loads(run_installed(installed, tmp_path, "sweep", "status", "ablation", "--format", "json"))
    assert cells == json.loads(run("sweep", "status", "ablation", "--format", "json").out)
    run_dir = "runs/vit_mini-gate_reg-s0"
    run_installed(installed, tmp_path, "diagnose", "--run", run_dir, "--out", "out")
    run_installed(installed, tmp_path, "report", run_dir, "--out", "page")
    assert (tmp_path / "page" / "index.html").is_file()
