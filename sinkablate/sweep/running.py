"""Train the cells of a sweep on this machine, several at a time, each in its own process."""

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

from sinkablate.process.signals import STOPPED, current_handlers, restore_handlers, set_handler
from sinkablate.run.cells import Cell
from sinkablate.run.directory import DONE
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.state import LOG, State, claimed, mark_failed, state_of

POLL = 0.05
"""Seconds between two checks of the child processes."""
THREADS = "OMP_NUM_THREADS"
GRACE = 60.0
"""Seconds that cells have to save a checkpoint after a signal, before they are killed."""


def fit_words(sweep: Sweep, cell: Cell, root: Path) -> list[str]:
    """Return the command line of `fit` for one cell in its directory; it resumes an interrupted cell."""
    project = [f"--wandb.project={sweep.project}"] if sweep.project else []
    return ["fit", *project, *cell.words, f"--sweep={sweep.name}", f"--run_dir={root / cell.id}", "--ckpt_path=auto"]


class Stop:
    """Count Ctrl-C and the other signals that stop a run, so that a second one can end the sweep at once."""

    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator["Stop"]:
        """Handle the signals within a `with` block."""
        before = current_handlers()
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
    """A cell in training; closing `held` releases its claim."""

    cell: Cell
    process: subprocess.Popen[bytes]
    slot: int
    held: ExitStack


@dataclass
class Runner:
    """Train the unfinished cells, and wait for cells that other processes are training.

    Args:
        sweep: The sweep.
        root: Directory of the sweep.
        jobs: Number of cells to train at the same time.
        restarts: Number of times that a killed cell is started again.
        show: Function to call repeatedly, to show the states.
        stop: Counter of the signals.
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
        """Train until every cell is done or has failed, or a signal arrives."""
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
        """Start a cell unless it is settled; return False if no slot is free or another runner has the cell."""
        run_dir = self.root / cell.id
        if len(self._children) == self.jobs:
            return False
        with ExitStack() as stack:
            state = state_of(run_dir)
            claim = None if state is State.RUNNING else stack.enter_context(claimed(run_dir))
            if claim is None:
                return False
            if state_of(run_dir, claimed_here=True) not in (State.DONE, State.FAILED):
                slot = min(set(range(self.jobs)) - {child.slot for child in self._children})
                process = self._start(cell, claim, devices[slot % len(devices)] if devices else None)
                self._children.append(_Child(cell, process, slot, stack.pop_all()))
        return True

    def _start(self, cell: Cell, claim: int, device: str | None) -> subprocess.Popen[bytes]:
        """Start one process that inherits the claim, in its own session, so that Ctrl-C only reaches the runner."""
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
        """Release children that have ended, and return the cells that should be started again."""
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
        """Let the cells save a checkpoint; kill them after a second signal or a minute."""
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
    """Return the environment variables for one thread per cell on a CPU; empty if the user has set them, or with GPUs.

    The number of threads changes the last bits of a result, which must not depend on how many cells train at the same
    time or on whether each has its own process.
    """
    return {} if THREADS in os.environ or visible_devices() else {THREADS: "1"}


def note_end(run_dir: Path, code: int) -> None:
    """Record how a cell ended if it will not be started again."""
    if not (run_dir / DONE).exists():
        mark_failed(run_dir, f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")


def visible_devices() -> list[str]:
    """Return the GPUs for cells: those in CUDA_VISIBLE_DEVICES, or all; empty without a GPU."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [device for device in named.split(",") if device.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number, line in enumerate(listed.splitlines()) if line.startswith("GPU")]
