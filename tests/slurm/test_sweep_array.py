"""`sweep submit` on a real SLURM of two nodes: every cell done, none twice, and the results those of a local sweep."""

import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from cluster import Cluster
from running import spawn
from test_fit import ARGS, CONFIG, ROOT, SITE

from sinkablate.sweep.grid import read_sweep
from sinkablate.sweep.state import State, states

pytestmark = pytest.mark.heavy

PARAMETERS = {"model.backbone.attention.gate": {"values": ["none", "headwise"]}, "seed_everything": {"values": [0, 1]},
              "model.optim.lr": {"value": 0.003}}


def sweep_file(folder: Path, **parameters: object) -> Path:
    """Four cells of 1,200 steps."""
    command = ["python", "-m", "sinkablate", "fit", "--config", str(CONFIG.with_name("baseline.yaml")), *ARGS,
               "--trainer.max_epochs=12", "--sweep", "array", "${args}"]
    path = folder / "array.yaml"
    path.write_text(yaml.safe_dump({"name": "array", "method": "grid", "command": command,
                                    "parameters": PARAMETERS | parameters}))
    return path


def sweep(slurm: Cluster, command: str, path: Path, *args: str) -> str:
    """`sweep COMMAND` on the login node, which is this machine."""
    site = path.parent / "site.sh"
    site.write_text(SITE)
    return slurm("bash", "-c", f"cd {ROOT} && {sys.executable} -W ignore -m sinkablate sweep {command} {path} "
                 f"--out {path.parent / 'cells'} {' '.join(args)}", SINKABLATE_SITE=str(site), OMP_NUM_THREADS="1",
                 SBATCH_OPTIONS=f"--output={path.parent / 'log'} --cpus-per-task=2")


def states_of(path: Path) -> list[State]:
    return list(states(read_sweep(path).cells, path.parent / "cells").values())


def longest(path: Path) -> int:
    """Rows of the longest record."""
    return max((len(file.read_text().splitlines()) for file in path.parent.glob("cells/*/metrics.csv")), default=0)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cells, trained without SLURM."""
    path = sweep_file(tmp_path_factory.mktemp("local"))
    spawn("sweep", "run", path, "--out", path.parent / "cells", "--jobs", "2", "--in_process", limit=500).succeeded()
    return path


def test_an_array_that_is_preempted_ends_as_a_local_sweep(slurm: Cluster, local: Path, tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    said = sweep(slurm, "submit", path)
    job = said.split()[1].rstrip(":")
    assert "4 cells" in said
    again = slurm("bash", "-c", f"cd {ROOT}; {sys.executable} -m sinkablate sweep submit {path} --out "
                  f"{tmp_path / 'cells'} 2>&1; echo code $?", SINKABLATE_SITE=str(tmp_path / "site.sh"))
    assert f"already submitted as job {job}" in again
    assert again.endswith("code 2")
    path.write_text("edited: after the submission\n")  # the array has a list of its own
    slurm.until(lambda: longest(path) > 30, 300)
    slurm("sbatch", "--parsable", "--partition=high", "--nodes=2", "--ntasks-per-node=2", "--output=/dev/null",
          "--wrap", "sleep 2")
    sweep_file(tmp_path)
    slurm.until(lambda: states_of(path) == [State.DONE] * 4, 900)
    restarts = 0
    for cell in read_sweep(path).cells:
        run_dir = tmp_path / "cells" / cell.id
        summary = json.loads((run_dir / "summary.json").read_text())
        restarts += summary["restarts"]
        assert (run_dir / "log.txt").read_text().count("run directory:") == 1
        one, other = (torch.load(root / "cells" / cell.id / "checkpoints" / "last.ckpt", weights_only=True)
                      for root in (local.parent, tmp_path))
        assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert restarts >= 1
    assert (tmp_path / "cells" / "sweep-0.yaml").read_text() == path.read_text()


def test_a_cell_that_fails_says_why_and_is_not_started_again(slurm: Cluster, tmp_path: Path) -> None:
    path = sweep_file(tmp_path, **{"model.optim.lr": {"values": [1e30]}, "seed_everything": {"value": 0},
                                   "model.backbone.attention.gate": {"value": "none"}})
    shown = sweep(slurm, "submit", path, "--dry_run")
    assert shown.splitlines()[0].startswith("sbatch --parsable --array=0-0")
    assert "--model.optim.lr=1e+30" in shown
    assert not (tmp_path / "cells").exists()
    sweep(slurm, "submit", path)
    slurm.until(lambda: states_of(path) == [State.FAILED], 300)
    [cell] = json.loads(sweep(slurm, "status", path, "--format", "json"))
    assert "the loss is" in cell["words"]

