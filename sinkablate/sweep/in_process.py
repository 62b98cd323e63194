"""Train small cells one after the other in this process, which avoids repeated imports."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from sinkablate.errors import UserError
from sinkablate.process.signals import STOPPED, current_handlers, install_handlers, reset, restore_handlers
from sinkablate.run.cells import Cell
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.running import POLL, Stop, fit_words, note_end, one_thread
from sinkablate.sweep.state import LOG, State, claimed, state_of

WAIT_SECONDS = 0.5
"""Seconds between two checks of cells that other processes are training."""


def run_in_process(sweep: Sweep, root: Path, stop: Stop, show: Callable[[], None]) -> None:
    """Train until every cell is done or has failed, or a signal arrives, which `fit` handles at its next step.

    Args:
        sweep: The sweep.
        root: Directory of the sweep.
        stop: Counter of the signals.
        show: Function to call after every cell.
    """
    waiting = list(sweep.cells)
    with stop.listening(), _interrupt_as_termination(), threads_of_a_cell():
        while waiting and not stop.count:
            before = len(waiting)
            for cell in list(waiting):
                if _train_unless_finished(sweep, cell, root, stop):
                    waiting.remove(cell)
                show()
                if stop.count:
                    break
            if len(waiting) == before:
                time.sleep(WAIT_SECONDS)


def run_workers(
    count: int, sweep: Sweep, root: Path, stop: Stop, show: Callable[[], None], *, allow_confounded: bool = False
) -> None:
    """Start several processes that each train cells one after the other; claims decide who trains which cell.

    Args:
        count: Number of processes.
        sweep: The sweep.
        root: Directory of the sweep.
        stop: Counter of the signals, which are passed on to the processes.
        show: Function to call repeatedly.
        allow_confounded: As for `sweep run`.
    """
    command = [
        sys.executable,
        "-m",
        "sinkablate",
        "sweep",
        "run",
        str(sweep.path),
        "--out",
        str(root),
        "--in_process",
        "--jobs",
        "1",
        f"--allow_confounded={str(allow_confounded).lower()}",
    ]
    env = os.environ | one_thread()
    with stop.listening(), ExitStack() as logs:
        files = [logs.enter_context((root / f"worker{number}.log").open("ab")) for number in range(count)]
        workers = [
            subprocess.Popen(
                command, stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=env, start_new_session=True
            )
            for file in files
        ]
        handled = 0
        while any(worker.poll() is None for worker in workers):
            if stop.count > handled:
                handled = stop.count
                for worker in workers:
                    worker.terminate() if handled == 1 else worker.kill()
            show()
            time.sleep(POLL)
    show()


def _train_unless_finished(sweep: Sweep, cell: Cell, root: Path, stop: Stop) -> bool:
    """Train a cell unless it is done or has failed; return False if another process is training it."""
    run_dir = root / cell.id
    if state_of(run_dir) is State.RUNNING:
        return False
    with claimed(run_dir) as claim:
        if claim is None:
            return False
        if state_of(run_dir, claimed_here=True) in (State.DONE, State.FAILED):
            return True
        code = _fit(fit_words(sweep, cell, root), run_dir / LOG)
        if code in STOPPED:
            stop.count += 1  # the signal reached fit
        else:
            note_end(run_dir, code)
    gc.collect()  # frees the reference cycle between trainer and module
    return True


def _fit(words: list[str], log: Path) -> int:
    """Run `fit` in this process with its output in a log file, and return its exit code."""
    from sinkablate.cli.trainer_command import run_trainer

    def run() -> int:
        handlers = current_handlers()
        reset()
        install_handlers()
        try:
            return run_trainer(words[0], words[1:])
        finally:
            restore_handlers(handlers)

    return logged(run, log)


def logged(run: Callable[[], int], log: Path) -> int:
    """Run a command in this process with its output and its error in a log file, and return its exit code."""
    with (
        log.open("a", buffering=1, encoding="utf-8") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        try:
            return run()
        except UserError as error:
            print(f"error: {error}")
            return 2
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else 1
        except Exception as error:  # an error in one cell must not stop the others
            print(f"error: {type(error).__name__}: {error}")
            return 1


@contextlib.contextmanager
def _interrupt_as_termination() -> Iterator[None]:
    """Turn Ctrl-C into SIGTERM, after which `fit` saves a checkpoint and stops."""

    def pass_on(_number: int, _frame: FrameType | None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, pass_on)}
    try:
        yield
    finally:
        restore_handlers(before)


@contextlib.contextmanager
def threads_of_a_cell() -> Iterator[None]:
    """Use the same number of threads as a cell that has its own process."""
    import torch

    before, settings = torch.get_num_threads(), one_thread()
    os.environ |= settings
    if settings:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        for name in settings:
            del os.environ[name]
