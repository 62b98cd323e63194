"""PyTorch's OpenMP threads on a machine that is shared: no more of them than CPUs, and waiting ones that sleep.

GNU OpenMP lets a thread that waits for the others of its team spin for some milliseconds. Nothing is faster on an idle
machine. Where another process takes one of the CPUs, the thread that is waited for may be the one that is not running,
and spinning keeps it from the CPU that it needs: a small model then trains five times slower or worse. The policy is
read from the environment (OMP_WAIT_POLICY, GOMP_SPINCOUNT) when the library is loaded, but the library itself spins
three thousand times shorter as soon as it manages more threads than there are CPUs. So while others need the CPUs, a
second team of threads is kept, which does nothing, and is let go when they are free again. Results do not depend on
it: the number of threads that compute stays the same.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from sinkablate.process.cpus import OtherProcesses, allowed_cpus, usable_cpus

SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Environment variables that say how a thread waits; where one is set, nothing is changed."""
FIRST, INTERVAL = 0.1, 0.5
"""Seconds until the first look at the other processes, and between two looks."""
TAKEN, FREE = 0.3, 0.15
"""CPUs that others take beyond those this process leaves: from the first on waiting threads sleep, below the second
they spin again."""
PATIENCE = 4
"""Looks in a row that must find the CPUs free."""


def limit_threads(processes: int = 1) -> int:
    """Let PyTorch compute with no more threads than this process may use CPUs; returns their number.

    PyTorch counts the cores of the host, whatever a container or a batch system grants. OMP_NUM_THREADS wins.

    Args:
        processes: Processes of this run on this machine, which share the CPUs.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        share = 1 if "SLURM_CPUS_PER_TASK" in os.environ else processes  # SLURM counts the CPUs of each process
        torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cpus() // share)))
    return torch.get_num_threads()


@contextmanager
def considerate_threads(processes: int = 1) -> Iterator[None]:
    """Compute with as many threads as there are CPUs to use; those that wait sleep while others need the CPUs."""
    threads = limit_threads(processes)
    others = OtherProcesses()
    with _inherited(threads) if processes > 1 else nullcontext():
        if threads == 1 or not others.measurable or any(name in os.environ for name in SETTINGS):
            yield
            return
        watch = _Watch(others, threads)
        watch.start()
        try:
            yield
        finally:
            watch.end()


@contextmanager
def _inherited(threads: int) -> Iterator[None]:
    """Give the processes that the trainer starts the same number of threads."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)


class _Watch(threading.Thread):
    """Looks at the other processes and keeps idle teams of threads while they need the CPUs."""

    def __init__(self, others: OtherProcesses, threads: int) -> None:
        super().__init__(name="considerate-threads", daemon=True)
        self._others, self._threads = others, threads
        self._left = len(allowed_cpus()) - threads
        self._ended = threading.Event()

    def run(self) -> None:
        """Until `end` is called."""
        teams: IdleTeams | None = None
        free = 0
        wait = FIRST
        while not self._ended.wait(wait):
            wait = INTERVAL
            taken = self._others.busy_cpus() - self._left
            free = free + 1 if taken < FREE else 0
            if taken > TAKEN and teams is None:
                teams = IdleTeams(self._threads)
            elif free >= PATIENCE and teams is not None:
                teams.dismiss()
                teams = None
        if teams is not None:
            teams.dismiss()

    def end(self) -> None:
        """Stop looking, and let the idle teams go."""
        self._ended.set()
        self.join()


class IdleTeams:
    """OpenMP teams that exist and do nothing, enough of them that there are more threads than CPUs.

    Args:
        threads: Threads of a team.
    """

    def __init__(self, threads: int) -> None:
        self._dismissed = threading.Event()
        count = (len(allowed_cpus()) - threads) // (threads - 1) + 1
        self._leaders = [threading.Thread(target=self._lead, name="idle-team", daemon=True) for _ in range(count)]
        for leader in self._leaders:
            leader.start()

    def _lead(self) -> None:
        import torch

        torch.ones(1 << 16).exp_()  # large enough to be computed by a team, which this thread then has
        self._dismissed.wait()

    def dismiss(self) -> None:
        """Let their threads end."""
        self._dismissed.set()
        for leader in self._leaders:
            leader.join()
