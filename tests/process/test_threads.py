"""The number of threads follows the CPUs that this process may use, and how they wait does not change results."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sinkablate.data.loader import worker_count
from sinkablate.process import cpus
from sinkablate.process.cpus import OtherProcesses, usable_cpus

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 64 CPUs, without SLURM."""
    monkeypatch.setattr(cpus, "allowed_cpus", lambda: set(range(64)))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


def system(root: Path, files: dict[str, str]) -> Path:
    """Write files of `/proc` and `/sys` below another root."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 64),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "350000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            },
            3,
        ),
        ({"proc/self/cgroup": "0::/not/mounted/here\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            64,
        ),
        ({"proc/self/cgroup": "0::/../..\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, 64),
    ],
)
def test_a_quota_of_the_control_group_limits_the_cpus(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert usable_cpus(system(tmp_path, files)) == expected


@pytest.mark.parametrize(("granted", "expected"), [("8", 8), ("128", 64), ("0", 64), ("", 64), ("all", 64)])
def test_slurm_limits_the_cpus(granted: str, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", granted)
    assert usable_cpus(tmp_path) == expected


def test_the_work_of_other_processes_excludes_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tick = os.sysconf("SC_CLK_TCK")
    monkeypatch.setattr(cpus, "allowed_cpus", lambda: {0, 2})
    clock, own = iter((10.0, 14.0)), iter((1.0, 2.0))
    monkeypatch.setattr(cpus.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(cpus.time, "process_time", lambda: next(own))

    def stat(zero: int, one: int, two: int) -> None:
        lines = [f"cpu{n} {busy * tick} 0 0 999 7 0 0 0 0 0" for n, busy in enumerate((zero, one, two))]
        system(tmp_path, {"proc/stat": "\n".join(["cpu 0 0 0 0 0 0 0 0 0 0", *lines, "intr 5"])})

    stat(0, 0, 0)
    others = OtherProcesses(tmp_path)
    stat(4, 100, 3)
    assert others.busy_cpus() == pytest.approx((4 + 3 - 1) / 4)


CODE = """
import hashlib, os, sys, torch
from sinkablate.process.threads import IdleTeams, limit_threads
threads = limit_threads()
teams = IdleTeams(threads) if threads > 1 and sys.argv[1] == "idle teams" else None
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(300, 400), torch.nn.GELU(), torch.nn.LayerNorm(400), torch.nn.Linear(400, 9))
for _ in range(3):
    net(torch.randn(500, 300)).square().mean().backward()
if teams:
    teams.dismiss()
digest = hashlib.sha256(b"".join(p.grad.numpy().tobytes() for p in net.parameters())).hexdigest()
print(threads, digest)
"""


def computed(mode: str, **env: str) -> list[str]:
    """Number of threads, and a hash of the gradients that they computed."""
    clean = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, mode], env=clean | env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.heavy
def test_idle_teams_change_no_result_and_omp_num_threads_takes_precedence() -> None:
    alone, with_teams = computed("alone"), computed("idle teams")
    assert alone == with_teams
    assert computed("alone", SLURM_CPUS_PER_TASK="1")[0] == "1"
    if len(os.sched_getaffinity(0)) > 1:
        assert computed("alone", SLURM_CPUS_PER_TASK="1", OMP_NUM_THREADS="2")[0] == "2"


@pytest.mark.parametrize(
    ("slurm", "processes", "workers"),
    [(None, 1, 16), (None, 8, 7), (None, 64, 1), (None, 100, 1), ("4", 1, 3), ("4", 8, 3), ("1", 2, 1)],
)
def test_workers_of_the_loader_leave_a_cpu_to_their_process(
    slurm: str | None, processes: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if slurm is not None:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert worker_count("auto", processes) == workers
    assert worker_count(5, processes) == 5
