"""A job of `slurm/evaluate.sbatch` on two nodes writes what one process writes, even if a rank is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster, python_pids
from evaluating import evaluate, folder_data, same_results
from running import ROOT

SCRIPT = ROOT / "slurm" / "evaluate.sbatch"
SITE = f"""PYTHON={sys.executable}
export MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1 PYTHONPATH={ROOT}
PARTITION= ACCOUNT= GPU_OPTIONS= SETUP= CONTAINER= STAGE= MAX_REQUEUES=20
"""


def test_a_dry_run_prints_what_would_be_submitted_and_run() -> None:
    settings = {"PARTITION": "gpu", "SBATCH_OPTIONS": "--nodes=2", "CONTAINER": "apptainer exec image.sif"}
    words = ["--run", "runs/one", "--tasks", "knn,linear", "--out", "my results"]
    command = ["bash", str(SCRIPT), "--dry-run", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=os.environ | settings)
    options = "--run runs/one --tasks knn,linear --out 'my results'"
    assert done.stdout.splitlines() == [
        "env SINKABLATE_COMMAND=evaluate sbatch --job-name=sinkablate-evaluate --partition=gpu --nodes=2 "
        f"{SCRIPT.with_name('fit.sbatch')} {options}",
        f"srun --kill-on-bad-exit=1 apptainer exec image.sif python -m sinkablate evaluate {options}",
    ]


@pytest.mark.parametrize("name", ["gate_reg", "configs/gate_reg.yaml", "configs/data/folder.yaml"])
def test_a_dry_run_of_a_shipped_config_works_from_any_folder(name: str, tmp_path: Path) -> None:
    command = ["bash", str(SCRIPT.with_name("fit.sbatch")), "--dry-run", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert f"--config {name}" in done.stdout.splitlines()[-1]


def test_without_options_the_script_says_how_to_use_it() -> None:
    done = subprocess.run(["bash", str(SCRIPT)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: usage: evaluate.sbatch")


@pytest.mark.heavy
def test_two_nodes_evaluate_together_and_survive_a_killed_rank(
    slurm: Cluster, finished: Path, image_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "site.sh").write_text(SITE)
    log, out = tmp_path / "log", tmp_path / "out"
    words = ("--run", str(finished), "--out", str(out), "--device", "cpu", *folder_data(image_folder))
    job = slurm(
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--ntasks-per-node=1",
        f"--chdir={tmp_path}",
        f"--output={log}",
        str(SCRIPT),
        *words,
        SINKABLATE_SITE=str(tmp_path / "site.sh"),
    )
    slurm.until(lambda: python_pids(f"out {out}"))
    os.kill(max(python_pids(f"out {out}")), signal.SIGKILL)
    slurm.until(lambda: slurm.state(job) in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
    assert slurm.state(job) == "COMPLETED", log.read_text()
    assert ": requeued, restart 1 of at most 20" in log.read_text()
    assert log.read_text().count("results: ") == 1
    evaluate(tmp_path / "alone", finished, *folder_data(image_folder)).succeeded()
    same_results(out, tmp_path / "alone")


@pytest.mark.heavy
def test_a_mistake_ends_the_job(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "site.sh").write_text(SITE)
    log = tmp_path / "log"
    words = (f"--output={log}", str(SCRIPT), "--run", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"))
    job = slurm("sbatch", "--parsable", *words, SINKABLATE_SITE=str(tmp_path / "site.sh"))
    slurm.until(lambda: slurm.state(job) in ("COMPLETED", "FAILED"))
    assert slurm.state(job) == "FAILED"
    assert "not requeued: run=" in log.read_text()
