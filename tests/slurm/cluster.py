"""A SLURM cluster of two virtual nodes on this machine, for one test session."""

import getpass
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NODES = ("n1", "n2")
LIMIT = 900.0
"""Seconds after which waiting fails."""
CONF = """
ClusterName=test{port}
FirstJobId={port}
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPort={port}
StateSaveLocation={root}/state
SlurmctldPidFile={root}/slurmctld.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdPidFile={root}/slurmd.%n.pid
SlurmdLogFile={root}/slurmd.%n.log
SlurmdSpoolDir={root}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=60
KillWait=5
MinJobAge=3600
JobRequeue=1
MaxArraySize=2
MailProg=/bin/true
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=00:00:00
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=n[1-2] MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Cluster:
    """A cluster of two nodes with two CPUs each; partition `high` preempts `main`; arrays have at most two tasks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "state").mkdir(parents=True)
        port, host = _free_ports(3), socket.gethostname().split(".")[0]
        nodes = "\n".join(
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + 1 + index} CPUs=2 "
            "RealMemory=4000 State=UNKNOWN"
            for index, name in enumerate(NODES)
        )
        conf = root / "slurm.conf"
        conf.write_text(CONF.format(host=host, user=getpass.getuser(), port=port, root=root, nodes=nodes))
        self.env = {**os.environ, "SLURM_CONF": str(conf)}
        self.env.pop("SLURM_JOB_ID", None)

    def start(self) -> None:
        """Start the daemons and wait until both nodes are idle."""
        self("slurmctld", "-f", self.env["SLURM_CONF"])
        for name in NODES:
            self("slurmd", "-N", name, "-f", self.env["SLURM_CONF"])
        self.until(lambda: self("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N").split() == list(NODES))

    def stop(self) -> None:
        """Cancel all jobs and end the daemons by their PIDs."""
        self("scancel", "--full", "-u", getpass.getuser())
        for file in (*self.root.glob("slurmd.*.pid"), self.root / "slurmctld.pid"):
            if file.exists():
                subprocess.run(["kill", file.read_text().strip()], check=False)

    def __call__(self, *command: str, **env: str) -> str:
        """Run a command of SLURM; returns its output."""
        done = subprocess.run(command, env=self.env | env, capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """State of a job, such as PENDING, RUNNING, COMPLETED."""
        return self("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")

    def field(self, job: str, name: str) -> str:
        """One field of `scontrol show job`."""
        fields = self("scontrol", "show", "job", "-o", job)
        return next(word.split("=", 1)[1] for word in fields.split() if word.startswith(f"{name}="))

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds; fail after `LIMIT` seconds."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end, f"the condition did not hold within {LIMIT} s"
            time.sleep(0.3)


def _free_ports(count: int) -> int:
    """The first of several consecutive free ports."""
    for port in range(21000 + os.getpid() % 250 * 16, 29000, 16):
        try:
            for number in range(port, port + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise RuntimeError("no free ports")


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """Pause processes, so that a signal reaches them at the same point on a machine of any speed."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def was_signalled(pid: int, number: int) -> bool:
    """Whether a signal is pending for a paused process, or has already continued or ended it."""
    try:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError):
        return True
    return not status["State"].startswith("T") or bool(int(status["ShdPnd"], 16) >> (number - 1) & 1)


def python_pids(pattern: str) -> list[int]:
    """PIDs of the Python processes whose command line matches a pattern."""
    pids = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=False).stdout.split()
    return [int(pid) for pid in pids if "python" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))]
