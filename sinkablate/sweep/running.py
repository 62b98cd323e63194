"""Trains the cells of a sweep on this machine, several at a time, each in a process of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from sinkablate.process.signals import SIGNALS, STOPPED, restore_handlers, set_handler
from sinkablate.run.cells import Cell
from sinkablate.run.directory import DONE
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import LOG, State, claimed, mark_failed, state_of

POLL = 0.05
"""Seconds between two looks at the children."""
THREADS = "OMP_NUM_THREADS"
GRACE = 60.0
"""Seconds that cells have to save themselves when the runner is asked to stop."""


def fit_words(sweep: Sweep, cell: Cell, root: Path) -> list[str]:
    """The words of `fit` for one cell in its directory, which goes on where the cell broke off."""
    project = [f"--wandb.project={sweep.project}"] if sweep.project else []
    return ["fit", *project, *cell.words, f"--sweep={sweep.name}", f"--run_dir={root / cell.id}", "--ckpt_path=auto"]


class Stop:
    """Ctrl-C and the signals that stop a run, while a sweep runs: counted, so that a second one can mean it."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Take the signals over for a while."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
        for number in before:
            set_handler(number, self._note)
        try:
            yield self
        finally:
            restore_handlers(before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1


@dataclass
class _Child:
    """A cell in training; leaving `held` gives its claim back."""

    cell: Cell
    process: subprocess.Popen[bytes]
    slot: int
    held: ExitStack


@dataclass
class Runner:
    """Trains what is to do, and waits for what others are training.

    Args:
        sweep: The sweep.
        root: Its directory.
        jobs: Cells at a time.
        restarts: How often a cell that was killed is started again.
        show: Called again and again, to show how things stand.
    """

    sweep: Sweep
    root: Path
    jobs: int
    restarts: int
    show: Callable[[], None]
    stop: Stop = field(default_factory=Stop)
    _children: list[_Child] = field(default_factory=list)
    _starts: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Until every cell is done or failed, or a signal asks to stop."""
        waiting = list(self.sweep.cells)
        devices = visible_devices()
        with self.stop.listening():
            while (waiting or self._children) and not self.stop.count:
                waiting = [cell for cell in waiting if not self._settled_or_started(cell, devices)]
                waiting += self._ended()
                self.show()
                time.sleep(POLL)
            self._end_children()
        self.show()

    def _settled_or_started(self, cell: Cell, devices: list[str]) -> bool:
        """False when the cell is to be looked at again: there is no room, or another runner trains it."""
        run_dir = self.root / cell.id
        if len(self._children) == self.jobs:
            return False
        with ExitStack() as stack:
            state = state_of(run_dir)
            claim = None if state is State.RUNNING else stack.enter_context(claimed(run_dir))
            if claim is None:
                return False
            if state_of(run_dir, ours=True) not in (State.DONE, State.FAILED):
                slot = min(set(range(self.jobs)) - {child.slot for child in self._children})
                process = self._start(cell, claim, devices[slot % len(devices)] if devices else None)
                self._children.append(_Child(cell, process, slot, stack.pop_all()))
        return True

    def _start(self, cell: Cell, claim: int, device: str | None) -> subprocess.Popen[bytes]:
        """One process that holds the claim too, in a session of its own: Ctrl-C reaches the runner alone."""
        self._starts[cell.id] += 1
        env = os.environ | one_thread() | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with (self.root / cell.id / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sinkablate", *fit_words(self.sweep, cell, self.root)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=env,
                pass_fds=[claim],
                start_new_session=True,
            )

    def _ended(self) -> list[Cell]:
        """Let go of children that have ended; the cells that are to be started again."""
        again = []
        for child in [child for child in self._children if child.process.poll() is not None]:
            run_dir, code = self.root / child.cell.id, child.process.returncode
            killed = code < 0 or code in STOPPED
            if killed and self._starts[child.cell.id] <= self.restarts:
                again.append(child.cell)
            elif not self.stop.count or not killed:
                note_end(run_dir, code)
            self._children.remove(child)
            child.held.close()
        return again

    def _end_children(self) -> None:
        """Ask the cells to save themselves; a second signal, or a minute, kills them."""
        for child in self._children:
            child.process.terminate()
        end = time.monotonic() + GRACE
        while self._children:
            if self.stop.count > 1 or time.monotonic() > end:
                for child in self._children:
                    child.process.kill()
            self._ended()
            self.show()
            time.sleep(POLL)


def one_thread() -> dict[str, str]:
    """Environment of a cell on a CPU: one thread, unless the user has said how many; empty where there are GPUs.

    The number of threads changes the last bits of a result, which must not depend on how many cells train at a time,
    or on whether each has a process of its own.
    """
    return {} if THREADS in os.environ or visible_devices() else {THREADS: "1"}


def note_end(run_dir: Path, code: int) -> None:
    """Write down how a cell ended that is not to be started again."""
    if not (run_dir / DONE).exists():
        mark_failed(run_dir, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def visible_devices() -> list[str]:
    """GPUs that cells can be spread over: those of CUDA_VISIBLE_DEVICES, or all; empty without any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU")]
