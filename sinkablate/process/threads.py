"""PyTorch's OpenMP threads on a shared machine: not more threads than CPUs, and waiting threads that sleep.

In GNU OpenMP a thread that waits for the others of its team spins for some milliseconds, which is fastest on an idle
machine. But if another process uses one of the CPUs, the thread that is waited for may be the one that is not running,
and spinning threads keep the CPU from it: a small model then trains five or more times slower. The library reads its
policy from the environment (OMP_WAIT_POLICY, GOMP_SPINCOUNT) when it is loaded, but it spins three thousand times
shorter as soon as it manages more threads than there are CPUs. So while other processes need the CPUs, additional
teams of idle threads are kept, and dismissed when the CPUs are free again. Results do not change, because the number
of computing threads stays the same.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sinkablate.process.cpus import OtherProcesses, allowed_cpus, cpus_per_process

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables that determine how a thread waits; if one is set, nothing is changed."""
FIRST, INTERVAL = 0.1, 0.5
"""Seconds until the first measurement of the other processes, and between two measurements."""
TAKEN, FREE = 0.3, 0.15
"""Number of CPUs that others use in excess of those that this process leaves free: above the first, waiting threads
sleep; below the second, they spin again."""
PATIENCE = 4
"""Number of consecutive measurements for which the CPUs must be free."""


def limit_threads(processes: int = 1) -> int:
    """Limit the threads of PyTorch to the number of CPUs that this process may use; returns their number.

    PyTorch itself counts the cores of the host, even if a container or a batch system grants fewer. OMP_NUM_THREADS
    takes precedence.

    Args:
        processes: Number of processes of this run on this machine, which share the CPUs.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), cpus_per_process(processes)))
    return torch.get_num_threads()


@contextmanager
def considerate_threads(processes: int = 1) -> Iterator[None]:
    """Compute with one thread per usable CPU; waiting threads sleep while other processes need the CPUs."""
    threads = limit_threads(processes)
    others = OtherProcesses()
    with _inherited(threads) if processes > 1 else nullcontext():
        if threads == 1 or not others.measurable or any(name in os.environ for name in SETTINGS):
            yield
            return
        monitor = _Monitor(others, threads)
        monitor.start()
        try:
            yield
        finally:
            monitor.end()


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """Give the same number of threads to the processes that the trainer starts."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)


class _Monitor(threading.Thread):
    """Measures the other processes, and keeps idle teams of threads while they need the CPUs."""

    def __init__(self, others: OtherProcesses, threads: int) -> None:
        super().__init__(name="considerate-threads", daemon=True)
        self._others, self._threads = others, threads
        self._unused = len(allowed_cpus()) - threads
        self._ended = threading.Event()

    def run(self) -> None:
        """Measure until `end` is called."""
        teams: IdleTeams | None = None
        free = 0
        wait = FIRST
        while not self._ended.wait(wait):
            wait = INTERVAL
            taken = self._others.busy_cpus() - self._unused
            free = free + 1 if taken < FREE else 0
            if taken > TAKEN and teams is None:
                teams = IdleTeams(self._threads)
            elif free >= PATIENCE and teams is not None:
                teams.dismiss()
                teams = None
        if teams is not None:
            teams.dismiss()

    def end(self) -> None:
        """Stop measuring, and dismiss the idle teams."""
        self._ended.set()
        self.join()


class IdleTeams:
    """Idle OpenMP teams, enough of them that there are more threads than CPUs.

    Args:
        threads: Number of threads in a team.
    """

    def __init__(self, threads: int) -> None:
        self._dismissed = threading.Event()
        count = (len(allowed_cpus()) - threads) // (threads - 1) + 1
        self._leaders = [threading.Thread(target=self._lead, name="idle-team", daemon=True) for _ in range(count)]
        for leader in self._leaders:
            leader.start()

    def _lead(self) -> None:
        import torch

        torch.ones(1 << 16).exp_()  # large enough to be computed by a team, which then belongs to this thread
        self._dismissed.wait()

    def dismiss(self) -> None:
        """End their threads."""
        self._dismissed.set()
        for leader in self._leaders:
            leader.join()
