"""The number of CPUs that this process may use, and how busy other processes keep them. Standard library only."""

import os
import time
from pathlib import Path

ROOT = Path("/")


def allowed_cpus() -> set[int]:
    """Numbers of the CPUs that the scheduler may run this process on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def usable_cpus(root: Path = ROOT) -> int:
    """Number of CPUs that this process can keep busy, at least 1.

    This is the minimum of its CPU affinity, the CPU quota of its control groups (version 1 or 2; containers and batch
    systems set one), and SLURM_CPUS_PER_TASK. A quota of 2.5 CPUs counts as 2.

    Args:
        root: Where `proc` and `sys` are mounted.
    """
    limits = [float(len(allowed_cpus())), *_quotas(root)]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm):
        limits.append(float(slurm))
    return max(1, int(min(limits)))


def cpus_per_process(processes: int) -> int:
    """Number of CPUs for each of the processes of one run on this machine, at least 1.

    Args:
        processes: Their number. SLURM_CPUS_PER_TASK is already the number of CPUs of each of them.
    """
    share = 1 if "SLURM_CPUS_PER_TASK" in os.environ else processes
    return max(1, usable_cpus() // share)


def _quotas(root: Path) -> list[float]:
    """CPU quotas, in CPUs, of the control groups of this process and of their parents."""
    quotas = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, group = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        for mount in ("", "unified") if not controllers else (controllers, "cpu"):
            folder = root / "sys/fs/cgroup" / mount
            parts = [part for part in group.split("/") if part not in ("", "..")]
            for depth in range(len(parts) + 1):  # inside a container the group itself is mounted at the root
                quotas += _quota(folder.joinpath(*parts[:depth]))
    return quotas


def _quota(group: Path) -> list[float]:
    """Quota of one control group in CPUs; empty if it has none."""
    words = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us").strip(),
        _read(group / "cpu.cfs_period_us").strip(),
    ]
    if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
        return [int(words[0]) / int(words[1])]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


class OtherProcesses:
    """Measures how many of the CPUs that this process may use are kept busy by others.

    Others include DataLoader workers, which need the CPUs as well, and time that the hypervisor takes from a virtual
    machine.

    Args:
        root: Where `proc` is mounted.
    """

    def __init__(self, root: Path = ROOT) -> None:
        self._stat = root / "proc/stat"
        self._names = {f"cpu{number}" for number in allowed_cpus()}
        self._last = self._now()

    @property
    def measurable(self) -> bool:
        """Whether the system provides the numbers; macOS does not."""
        return bool(_read(self._stat))

    def busy_cpus(self) -> float:
        """Average number of CPUs that others kept busy since the last call."""
        before, self._last = self._last, self._now()
        seconds, busy, own = (now - then for now, then in zip(self._last, before, strict=True))
        return max(0.0, (busy - own) / seconds) if seconds > 0 else 0.0

    def _now(self) -> tuple[float, float, float]:
        """Seconds of wall time, and of CPU time of all processes and of this one."""
        busy = 0.0
        for line in _read(self._stat).splitlines():
            name, *fields = line.split()
            if name in self._names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
                busy += user + nice + system + irq + softirq + steal
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), time.process_time()
