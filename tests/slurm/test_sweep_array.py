"""`sweep submit` on a cluster trains every cell once, with the same results as a local sweep."""

import json
import signal
import sys
from pathlib import Path

import pytest
import torch
import yaml
from cluster import Cluster, python_pids, stopped, was_signalled
from running import spawn, summary
from test_fit import ARGS, CONFIG, ROOT, SITE

from sinkablate.sweep.grid import read_sweep
from sinkablate.sweep.state import State, states

pytestmark = pytest.mark.heavy

PARAMETERS = {
    "model.backbone.attention.gate": {"value": "headwise"},
    "seed_everything": {"values": [0, 1, 2]},
    "model.optim.lr": {"value": 0.003},
}


def sweep_file(folder: Path, **parameters: object) -> Path:
    """Write a sweep of three cells of 200 steps, which needs two arrays."""
    command = [
        "python",
        "-m",
        "sinkablate",
        "fit",
        "--config",
        str(CONFIG.with_name("baseline.yaml")),
        *ARGS,
        "--sweep",
        "array",
        "${args}",
    ]
    path = folder / "array.yaml"
    path.write_text(
        yaml.safe_dump({"name": "array", "method": "grid", "command": command, "parameters": PARAMETERS | parameters})
    )
    return path


def sweep(slurm: Cluster, command: str, path: Path, *args: str) -> str:
    """Run `sweep COMMAND` on the login node, which is this machine."""
    site = path.parent / "site.sh"
    site.write_text(SITE)
    return slurm(
        "bash",
        "-c",
        f"cd {ROOT} && {sys.executable} -W ignore -m sinkablate sweep {command} {path} "
        f"--out {path.parent / 'cells'} {' '.join(args)}",
        SINKABLATE_SITE=str(site),
        OMP_NUM_THREADS="1",
        SBATCH_OPTIONS=f"--output={path.parent / 'log'} --cpus-per-task=2",
    )


def states_of(path: Path) -> list[State]:
    """States of the cells of a sweep file."""
    return list(states(read_sweep(path).cells, path.parent / "cells").values())


def rows(run_dir: Path) -> int:
    """Number of lines of `metrics.csv`."""
    path = run_dir / "metrics.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a sweep file whose cells have been trained without SLURM."""
    path = sweep_file(tmp_path_factory.mktemp("local"))
    spawn("sweep", "run", path, "--out", path.parent / "cells", "--jobs", "1", "--in_process").succeeded()
    return path


def cell_with_id_of_its_array(slurm: Cluster, jobs: list[str]) -> tuple[int, str] | None:
    """Position in the sweep and node of a running task whose own job id is that of the array it belongs to."""
    for line in slurm("squeue", "-h", "-r", "-t", "RUNNING", "-o", "%A %F %K %N").splitlines():
        own, array, task, node = line.split()
        if own == array == jobs[0]:
            return int(task), node
    return None


def test_only_the_cell_that_is_preempted_starts_again(slurm: Cluster, local: Path, tmp_path: Path) -> None:
    path = sweep_file(tmp_path)
    slurm("scontrol", "update", "PartitionName=main", "State=DOWN")  # jobs wait until all of them have been looked at
    output = sweep(slurm, "submit", path)
    jobs = [line.split()[1].rstrip(":") for line in output.splitlines()]
    resubmission = slurm(
        "bash",
        "-c",
        f"cd {ROOT}; {sys.executable} -m sinkablate sweep submit {path} --out {tmp_path / 'cells'} 2>&1; echo code $?",
        SINKABLATE_SITE=str(tmp_path / "site.sh"),
    )
    slurm("scontrol", "update", "PartitionName=main", "State=UP")
    assert [line.split(": ")[1].split(" of")[0] for line in output.splitlines()] == ["2 cells", "1 cells"]
    assert list(json.loads((tmp_path / "cells" / "submitted.json").read_text())) == jobs
    assert f"already submitted as job {', '.join(jobs)}" in resubmission
    assert resubmission.endswith("code 2")
    cells = read_sweep(path).cells
    path.write_text("edited: after the submission\n")  # submitted arrays have their own lists of cells
    slurm.until(lambda: cell_with_id_of_its_array(slurm, jobs))
    index, node = cell_with_id_of_its_array(slurm, jobs) or (0, "")
    run_dirs = [tmp_path / "cells" / cell.id for cell in cells]
    slurm.until(lambda: rows(run_dirs[index]) > 3)
    with stopped(pids := python_pids(f"run_dir={run_dirs[index]}")):
        slurm(
            "sbatch",
            "--parsable",
            "--partition=high",
            f"--nodelist={node}",
            "--ntasks-per-node=2",
            "--output=/dev/null",
            "--wrap",
            "true",
        )
        slurm.until(lambda: any(was_signalled(pid, signal.SIGTERM) for pid in pids))
    sweep_file(tmp_path)
    slurm.until(lambda: states_of(path) == [State.DONE] * 3)
    restarts = [summary(run_dir)["restarts"] for run_dir in run_dirs]
    assert restarts == [int(number == index) for number in range(3)]
    for cell, run_dir in zip(cells, run_dirs, strict=True):
        log = (run_dir / "log.txt").read_text()
        assert log.count("run directory:") == 1
        assert log.count(": requeued, restart") == int(run_dir == run_dirs[index])
        one, other = (
            torch.load(root / "cells" / cell.id / "checkpoints" / "last.ckpt", weights_only=True)
            for root in (local.parent, tmp_path)
        )
        assert all(torch.equal(tensor, other["state_dict"][name]) for name, tensor in one["state_dict"].items())
    assert (tmp_path / "cells" / "sweep-0.yaml").read_text() == path.read_text()


def test_a_failed_cell_reports_the_reason_and_is_not_requeued(slurm: Cluster, tmp_path: Path) -> None:
    path = sweep_file(
        tmp_path,
        **{
            "model.optim.lr": {"values": [1e30]},
            "seed_everything": {"value": 0},
            "model.backbone.attention.gate": {"value": "none"},
        },
    )
    output = sweep(slurm, "submit", path, "--dry_run")
    assert output.splitlines()[0].startswith("sbatch --parsable --array=0-0")
    assert "--model.optim.lr=1e+30" in output
    assert not (tmp_path / "cells").exists()
    sweep(slurm, "submit", path)
    slurm.until(lambda: states_of(path) == [State.FAILED])
    [cell] = json.loads(sweep(slurm, "status", path, "--format", "json"))
    assert "the loss is" in cell["words"]
