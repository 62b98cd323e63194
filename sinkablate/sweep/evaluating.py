"""Evaluate the finished cells of a sweep, each into its own directory, where `collect` finds the numbers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc
from pathlib import Path
from typing import Any

from sinkablate.cli.parser import Parser, call
from sinkablate.errors import UserError
from sinkablate.evaluate.command import evaluate
from sinkablate.evaluate.tasks import tasks_named
from sinkablate.run.cells import Cell, parse_words
from sinkablate.run.directory import diverged
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.in_process import logged, threads_of_a_cell
from sinkablate.sweep.running import POLL, Stop, one_thread, visible_devices
from sinkablate.sweep.state import State, state_of

LOG = "evaluation.log"
"""File in the directory of a cell with the output of `evaluate`."""
OF_CELL: set[str | int] = {"out", "backbone", "run", "hf"}
"""Parameters of `evaluate` that the cell determines."""


def split_options(command: Callable[..., int], argv: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Parse the options of `sweep evaluate`, and check those that are passed on to `evaluate`.

    Args:
        command: The function of `sweep evaluate`; its parameter `options` takes the words that are passed on.
        argv: The words after the command.

    Returns:
        The arguments of the function, and the words that are passed on.

    Raises:
        UserError: An option is unknown, or its value is wrong.
    """
    description = (getdoc(command) or "").partition("\n\nArgs:")[0]
    parser = Parser(
        prog="sinkablate sweep evaluate", allow_abbrev=False, parser_mode="omegaconf+", description=description
    )
    parser.add_argument("--config", action="config", help="File with options of `evaluate`.")
    own = parser.add_function_arguments(command, as_group=False, as_positional=True, skip={"options"})
    parser.add_function_arguments(evaluate, skip=OF_CELL)
    parsed = parser.parse_args(argv)
    tasks_named(parsed.tasks)
    given = [(key.replace("-", "_"), value) for key, value in parse_words(argv)]
    passed_on = [f"--{key}={value}" for key, value in given if key not in own]
    return {name: parsed[name] for name in own}, passed_on


def finished_cells(sweep: Sweep, root: Path) -> list[Cell]:
    """Return the cells that can be evaluated: those that have finished and have not diverged.

    Raises:
        UserError: There is none.
    """
    cells = [cell for cell in sweep.cells if state_of(root / cell.id) is State.DONE and not diverged(root / cell.id)]
    if not cells:
        raise UserError(f"out={root}: no cell of this sweep has finished; train the cells first")
    return cells


def evaluated_here(cells: Sequence[Cell], root: Path, options: Sequence[str]) -> Iterator[tuple[Cell, int]]:
    """Evaluate cells one after the other in this process; yields each with its exit code."""
    with threads_of_a_cell():
        for cell in cells:
            words = _words(root / cell.id, options)[1:]
            yield cell, logged(lambda words=words: _evaluate(words), root / cell.id / LOG)  # type: ignore[misc]


def _evaluate(words: list[str]) -> int:
    call(evaluate, "evaluate", words)
    return 0


def evaluated_in_processes(
    cells: Sequence[Cell], root: Path, options: Sequence[str], jobs: int, stop: Stop
) -> Iterator[tuple[Cell, int]]:
    """Evaluate cells, several at a time, each in its own process; yields each with its exit code when it ends.

    Args:
        cells: The cells.
        root: Directory of the sweep.
        options: Options of `evaluate`.
        jobs: Number of processes at a time, among which the GPUs are distributed.
        stop: Counter of the signals; after the first, running evaluations are ended and no other one is started.
    """
    waiting, devices = list(cells), visible_devices()
    running: dict[int, tuple[Cell, subprocess.Popen[bytes]]] = {}
    with stop.listening():
        while running or (waiting and not stop.count):
            for slot in [slot for slot in range(jobs) if slot not in running] if not stop.count else []:
                if waiting:
                    device = devices[slot % len(devices)] if devices else None
                    cell = waiting.pop(0)
                    running[slot] = cell, _start(root / cell.id, options, device)
            for slot, (cell, process) in list(running.items()):
                if stop.count:
                    process.terminate()
                if process.poll() is not None:
                    del running[slot]
                    yield cell, process.returncode
            time.sleep(POLL)


def _start(run_dir: Path, options: Sequence[str], device: str | None) -> subprocess.Popen[bytes]:
    """Start the evaluation of one cell in its own session, so that Ctrl-C only reaches this process."""
    env = os.environ | one_thread() | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
    with (run_dir / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "sinkablate", *_words(run_dir, options)],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        )


def _words(run_dir: Path, options: Sequence[str]) -> list[str]:
    """Return the command line of `evaluate` for one cell."""
    return ["evaluate", f"--run={run_dir}", *options]
