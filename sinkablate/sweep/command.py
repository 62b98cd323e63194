"""The verb `sweep`: list the cells of a file, train them here or on a cluster, see how they stand, collect them."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Literal

from rich.console import Console

from sinkablate.cli.parser import call
from sinkablate.errors import UserError
from sinkablate.files.shipped import find_shipped, nearest_shipped, shipped_names
from sinkablate.files.suggestions import did_you_mean
from sinkablate.sweep.checking import check
from sinkablate.sweep.grid import Sweep, read_sweep, unprintable
from sinkablate.sweep.state import State, reset, state_of, states, threads_of

Format = Literal["table", "json"]


def plan(file: str, out: str | None = None, format: Format = "table") -> int:
    """List the cells of a sweep and check every one, without starting anything.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
        format: table or json.
    """
    sweep, root = _opened(file, out)
    check(sweep, root)
    if format == "json":
        cells = [
            {
                "id": cell.id,
                "label": cell.label,
                "factors": cell.short_factors,
                "words": list(cell.words),
                "run_dir": str(root / cell.id),
            }
            for cell in sweep.cells
        ]
        print(json.dumps({"name": sweep.name, "root": str(root), "cells": cells}, indent=1))
        return 0
    from sinkablate.sweep.live import table

    Console(highlight=False).print(table(sweep, root, states(sweep.cells, root)))
    return 0


def run(file: str, out: str | None = None, jobs: int | None = None, in_process: bool = False, restarts: int = 3) -> int:
    """Train every cell of a sweep on this machine; the same command again goes on where it stopped.

    Done and failed cells are left alone, interrupted ones go on from their checkpoints, and cells that another process
    trains are waited for. Ctrl-C lets the cells save themselves.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
        jobs: Cells at a time (default: one per GPU, or else per CPU core).
        in_process: Train small cells one after the other in each of the processes: imports are paid once.
        restarts: How often a cell that was killed is started again.
    """
    from sinkablate.sweep.in_process import run_in_process, run_workers
    from sinkablate.sweep.live import View, totals
    from sinkablate.sweep.running import Runner, Stop, visible_devices

    jobs = len(visible_devices()) or len(os.sched_getaffinity(0)) if jobs is None else jobs
    for name, value, least in (("jobs", jobs, 1), ("restarts", restarts, 0)):
        if value < least:
            raise UserError(f"{name} must be at least {least}, got {value}")
    sweep, root = _opened(file, out)
    _make(root)
    check(sweep, root)
    stop = Stop()
    with View(sweep, root, Console(highlight=False)) as view:
        if in_process and jobs == 1:
            run_in_process(sweep, root, stop, view)
        elif in_process:
            run_workers(jobs, sweep, root, stop, view)
        else:
            Runner(sweep, root, jobs, restarts, view, stop).run()
    now = states(sweep.cells, root)
    print(f"{sweep.name}: {totals(now)}; in {root}")
    if stop.count:
        print("stopped; the same command goes on")
        return 130
    return 0 if set(now.values()) == {State.DONE} else 1


def submit(file: str, out: str | None = None, dry_run: bool = False) -> int:
    """Submit the cells that are still to do as SLURM job arrays, with the settings of slurm/site.sh.

    One array takes them all, unless there are more than MaxArraySize of your cluster allows.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
        dry_run: Print what would be submitted.
    """
    from sinkablate.sweep.submitting import submit as submit_array

    sweep, root = _opened(file, out)
    if not dry_run:
        _make(root)
    check(sweep, root)
    for line in submit_array(sweep, root, dry_run=dry_run):
        print(line, flush=True)
    return 0


def status(file: str, out: str | None = None, format: Format = "table") -> int:
    """Say how every cell stands: todo, running, preempted, failed (and why) or done.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
        format: table or json.
    """
    from sinkablate.sweep.live import say_of, table

    sweep, root = _opened(file, out)
    now = states(sweep.cells, root)
    threads = threads_of(now, root)
    if format == "json":
        print(
            json.dumps(
                [
                    {
                        "id": cell.id,
                        "label": cell.label,
                        "state": now[cell.id],
                        "threads": threads.get(cell.id),
                        "words": say_of(cell, now[cell.id], root),
                    }
                    for cell in sweep.cells
                ],
                indent=1,
            )
        )
        return 0
    console = Console(highlight=False)
    console.width = max(console.width, 160) if not console.is_terminal else console.width
    console.print(table(sweep, root, now))
    if len(counts := Counter(threads.values())) > 1:
        numbers = ", ".join(f"{cells} with {number}" for number, cells in sorted(counts.items()))
        console.print(
            f"note: cells differ in their number of threads ({numbers}), and so in their last bits",
            markup=False,
            soft_wrap=True,
        )
    return 0


def retry(file: str, out: str | None = None) -> int:
    """Reset failed cells: the next `run` or `submit` goes on from their checkpoints, or starts them afresh.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
    """
    sweep, root = _opened(file, out)
    failed = [cell for cell in sweep.cells if state_of(root / cell.id) is State.FAILED]
    for cell in failed:
        reset(root / cell.id)
        print(f"reset: {cell.id} {cell.label}")
    if not failed:
        print("no cell has failed")
    return 0


def collect(file: str, out: str | None = None, results: str | None = None, overwrite: bool = False) -> int:
    """Write one tidy table of all cells, for `compare` and `report`: a row a cell, whatever became of it.

    Args:
        file: The sweep, a W&B grid.
        out: Directory of the sweep (default: runs/<name>).
        results: The table, a .csv or .parquet file (default: <out>/results.csv, which is always written anew).
        overwrite: Replace another file that is there.
    """
    from sinkablate.sweep.collecting import collect as collected

    sweep, root = _opened(file, out)
    path = root / "results.csv" if results is None else Path(results)
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"results={results} must end with .csv or .parquet")
    if results and path.exists() and not overwrite:
        raise UserError(f"results={path} is there; choose another, or give --overwrite")
    if not root.is_dir():
        raise UserError(f"out={root}: nothing of this sweep has run there")
    table = collected(sweep, root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    except OSError as error:
        raise UserError(f"results={path} cannot be written: {error.strerror or error}") from None
    done = int((table["status"] == str(State.DONE)).sum())
    print(f"{path}: {len(table)} cells, {done} done, {int(table['diverged'].sum())} diverged")
    return 0


VERBS = {verb.__name__: verb for verb in (plan, run, submit, status, retry, collect)}


def main(argv: list[str]) -> int:
    """Run one of the commands with its options; its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<8} {(verb.__doc__ or '').splitlines()[0]}" for name, verb in VERBS.items())
        print(f"usage: python -m sinkablate sweep COMMAND FILE [options]\n\n{lines}")
        return 0
    if argv[0] not in VERBS:
        raise UserError(f"unknown command sweep {argv[0]}; there are {', '.join(VERBS)}{did_you_mean(argv[0], VERBS)}")
    try:
        return int(call(VERBS[argv[0]], f"sweep {argv[0]}", argv[1:]))
    except BrokenPipeError:
        raise
    except OSError as error:  # all files are those of the sweep
        raise UserError(f"{error.filename or 'sweep'}: {error.strerror or error}") from error


def _opened(file: str, out: str | None) -> tuple[Sweep, Path]:
    """A sweep and the directory of its cells.

    Raises:
        UserError: The file is not a sweep, or the name of the directory cannot stand in a list of cells.
    """
    if out == "" or unprintable(out or ""):
        raise UserError(f"out={out!r}: not the name of a directory; a line of text without control characters is one")
    path = find_shipped("sweeps", file)
    if path is None:
        near = nearest_shipped("sweeps", file) or f"; sweeps with a name: {', '.join(shipped_names('sweeps'))}"
        raise UserError(f"{file}: no such file{near}")
    sweep = read_sweep(Path(path))
    root = Path("runs") / sweep.name if out is None else Path(out)
    if root.exists() and not root.is_dir():
        raise UserError(f"out={root}: not a directory")
    return sweep, root


def _make(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"out={root} cannot be made: {error.strerror}") from None
