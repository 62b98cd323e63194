"""Jobs of `slurm/fit.sbatch` on two nodes end with the same weights, however they are interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster import Cluster, python_pids, stopped, was_signalled
from running import checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCRIPT, CONFIG = ROOT / "slurm" / "fit.sbatch", ROOT / "configs" / "gate_reg.yaml"
ARGS = (
    "--data.batch_size=32",
    "--data.eval_batch_size=100",
    "--trainer.limit_train_batches=200",
    "--trainer.limit_val_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--wandb.mode=disabled",
    "--diagnostics.images=8",
    "--diagnostics.every_n_steps=100",
    "--diagnostics.heatmap=false",
    "--checkpoint.every_n_train_steps=20",
    "--model.backbone.drop_path_rate=0.1",
    "--trainer.log_every_n_steps=5",
)
SITE = f"""PYTHON={sys.executable}
export MASTER_ADDR=127.0.0.1 GLOO_SOCKET_IFNAME=lo OMP_NUM_THREADS=1
PARTITION= ACCOUNT= GPU_OPTIONS= SETUP= CONTAINER= STAGE= MAX_REQUEUES=20
"""

pytestmark = pytest.mark.heavy


class Job:
    """A submitted job and its run directory."""

    def __init__(self, slurm: Cluster, root: Path, *options: str) -> None:
        self.slurm, self.log, self.run_dir = slurm, root / "log", root / "run"
        (root / "site.sh").write_text(SITE)
        self.id = slurm(
            "sbatch",
            "--parsable",
            "--nodes=2",
            "--ntasks-per-node=1",
            f"--chdir={root}",
            f"--output={self.log}",
            *options,
            str(SCRIPT),
            str(CONFIG),
            *ARGS,
            f"--run_dir={self.run_dir}",
            SINKABLATE_SITE=str(root / "site.sh"),
        )

    def until_step(self, steps: int) -> None:
        """Wait until a number of steps has been logged."""

        def reached() -> bool:
            metrics = self.run_dir / "metrics.csv"
            return metrics.exists() and int((metrics.read_text().splitlines()[-1].split(",")[0]) or 0) >= steps

        self.slurm.until(reached)

    def wait(self) -> str:
        """Wait for the end; returns the final state."""
        self.slurm.until(lambda: self.slurm.state(self.id) in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"))
        return self.slurm.state(self.id)

    def text(self) -> str:
        """Output of the job so far."""
        return self.log.read_text() if self.log.exists() else ""

    def restarts(self) -> int:
        """Number of times that SLURM has requeued the job."""
        return int(self.slurm.field(self.id, "Restarts"))

    def ranks(self) -> list[int]:
        """PIDs of the training processes."""
        return python_pids(f"run_dir={self.run_dir}")

    def weights(self) -> dict[str, Any]:
        """Weights of the last checkpoint."""
        state: dict[str, Any] = checkpoint(self.run_dir)["state_dict"]
        return state


@pytest.fixture(scope="module")
def uninterrupted(slurm: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A finished job of two nodes that was not interrupted."""
    job = Job(slurm, tmp_path_factory.mktemp("uninterrupted"))
    assert job.wait() == "COMPLETED", job.text()
    return job


def assert_same_result(job: Job, uninterrupted: Job) -> None:
    """Wait for a job and check that its weights are those of an uninterrupted one."""
    assert job.wait() == "COMPLETED", job.text()
    assert (job.run_dir / "DONE").exists()
    assert not (job.run_dir / "PREEMPTED").exists()
    for name, tensor in uninterrupted.weights().items():
        assert torch.equal(job.weights()[name], tensor), name


def test_two_nodes_train_together(uninterrupted: Job) -> None:
    summary = json.loads((uninterrupted.run_dir / "summary.json").read_text())
    assert (summary["world_size"], summary["steps"], summary["restarts"]) == (2, 200, 0)
    assert ": requeued, restart" not in uninterrupted.text(), uninterrupted.text()  # SLURM itself may restart a job
    assert f"finished: {uninterrupted.run_dir}" in uninterrupted.text()


def test_a_job_is_resumed_after_its_time_limit(slurm: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path, "--time=30", "--signal=USR1@120")
    job.until_step(20)
    with stopped(ranks := job.ranks()):
        minutes = int(slurm.field(job.id, "RunTime").split(":")[1])
        limit = f"TimeLimit={minutes + 2}"  # at most 120 s away, so SLURM sends the signal now
        slurm("scontrol", "update", f"JobId={job.id}", limit)
        slurm.until(lambda: any(was_signalled(pid, signal.SIGUSR1) for pid in ranks))
    slurm.until(lambda: job.restarts() >= 1)
    slurm("scontrol", "update", f"JobId={job.id}", "TimeLimit=30")
    assert_same_result(job, uninterrupted)
    assert job.restarts() >= 1
    assert "stopped by" in job.text()
    assert ": requeued, restart" in job.text()


def test_a_preempted_job_is_resumed(slurm: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path)
    job.until_step(20)
    with stopped(ranks := job.ranks()):
        other = slurm(
            "sbatch",
            "--parsable",
            "--partition=high",
            "--nodes=2",
            "--ntasks-per-node=2",
            "--output=/dev/null",
            "--wrap",
            "true",
        )
        slurm.until(lambda: any(was_signalled(pid, signal.SIGTERM) for pid in ranks))
    assert_same_result(job, uninterrupted)
    assert slurm.state(other) == "COMPLETED"
    assert job.restarts() >= 1
    assert "stopped by SIGTERM" in job.text()


def test_a_job_is_resumed_after_a_signal_during_its_imports(slurm: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path)
    slurm.until(lambda: "m sinkablate fit" in _commands(job))
    subprocess.run(["timeout", "1", "scancel", "--signal=USR1", job.id], env=slurm.env, check=False)
    assert_same_result(job, uninterrupted)


def test_a_job_is_resumed_after_a_rank_is_killed(slurm: Cluster, uninterrupted: Job, tmp_path: Path) -> None:
    job = Job(slurm, tmp_path)
    job.until_step(45)
    os.kill(max(job.ranks()), signal.SIGKILL)
    slurm.until(lambda: job.restarts() >= 1)
    assert_same_result(job, uninterrupted)
    assert ": requeued, restart" in job.text()


def test_a_job_with_a_wrong_key_is_not_requeued(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "site.sh").write_text(SITE)
    log = tmp_path / "log"
    job = slurm(
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--ntasks-per-node=1",
        f"--chdir={tmp_path}",
        f"--output={log}",
        str(SCRIPT),
        str(CONFIG),
        "--model.nothing=1",
        SINKABLATE_SITE=str(tmp_path / "site.sh"),
    )
    slurm.until(lambda: slurm.state(job) == "FAILED")
    assert "model.nothing" in log.read_text()
    assert int(slurm.field(job, "Restarts")) == 0


def _commands(job: Job) -> str:
    return subprocess.run(
        ["pgrep", "-af", f"run_dir={job.run_dir}"], capture_output=True, text=True, check=False
    ).stdout
