"""A job of `slurm/evaluate.sbatch` on two nodes writes what one process writes."""

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster
from evaluating import evaluate, folder_data, same_results
from running import ROOT

SCRIPT = ROOT / "slurm" / "evaluate.sbatch"
SITE = f"""PYTHON={sys.executable}
export MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1 PYTHONPATH={ROOT}
PARTITION= ACCOUNT= GPU_OPTIONS= SETUP= CONTAINER= STAGE= MAX_REQUEUES=20
"""


@pytest.mark.heavy
def test_two_nodes_evaluate_together(slurm: Cluster, finished: Path, image_folder: Path, tmp_path: Path) -> None:
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
    slurm.until(lambda: slurm.state(job) in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
    assert slurm.state(job) == "COMPLETED", log.read_text()
    evaluate(tmp_path / "alone", finished, *folder_data(image_folder)).succeeded()
    same_results(out, tmp_path / "alone")
    assert log.read_text().count("results: ") == 1


def test_without_a_job_the_script_says_how_to_submit_it() -> None:
    done = subprocess.run(["bash", str(SCRIPT), "--run", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: usage: sbatch")
