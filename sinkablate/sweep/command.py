"""The command `sweep`: list the cells of a sweep, train and evaluate them, show their states, collect the results."""

import json
from collections import Counter
from pathlib import Path

from rich.console import Console

from sinkablate.cli.parser import call
from sinkablate.errors import UserError, require_at_least
from sinkablate.files.ownership import refuse_foreign_file
from sinkablate.files.shipped import shipped_names
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.process.cpus import allowed_cpus
from sinkablate.sweep.checking import check
from sinkablate.sweep.evaluate_command import evaluate, run_evaluate
from sinkablate.sweep.opening import make_root, open_sweep
from sinkablate.sweep.plan_command import Format, plan
from sinkablate.sweep.state import State, reset, state_of, states, threads_of


def run(
    file: str,
    out: str | None = None,
    jobs: int | None = None,
    in_process: bool = False,
    restarts: int = 3,
    allow_confounded: bool = False,
) -> int:
    """Train all cells of a sweep on this machine; repeat the command to resume after an interruption.

    Finished and failed cells are skipped, interrupted cells resume from their checkpoints, and the command waits for
    cells that another process is training. After Ctrl-C the cells save a checkpoint before they stop.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        jobs: Number of cells to train at the same time (default: one per GPU, or per CPU core without a GPU).
        in_process: Train several cells in each process, one after the other, which saves small cells the import time.
        restarts: Number of times that a killed cell is started again.
        allow_confounded: Accept cells that differ in more than what the parameters name, such as a learning rate.
    """
    from sinkablate.sweep.in_process import run_in_process, run_workers
    from sinkablate.sweep.live import View, totals
    from sinkablate.sweep.running import Runner, Stop, visible_devices

    jobs = len(visible_devices()) or len(allowed_cpus()) if jobs is None else jobs
    for name, value, least in (("jobs", jobs, 1), ("restarts", restarts, 0)):
        require_at_least(value, least, name)
    sweep, root = open_sweep(file, out)
    make_root(root)
    check(sweep, root, allow_confounded=allow_confounded)
    stop = Stop()
    with View(sweep, root, Console(highlight=False)) as view:
        if in_process and jobs == 1:
            run_in_process(sweep, root, stop, view)
        elif in_process:
            run_workers(jobs, sweep, root, stop, view, allow_confounded=allow_confounded)
        else:
            Runner(sweep, root, jobs, restarts, view, stop).run()
    now = states(sweep.cells, root)
    print(f"{sweep.name}: {totals(now)}; directory: {root}")
    if stop.count:
        print("stopped; the same command resumes")
        return 130
    return 0 if set(now.values()) == {State.DONE} else 1


def submit(file: str, out: str | None = None, dry_run: bool = False, allow_confounded: bool = False) -> int:
    """Submit the unfinished cells as a SLURM job array, with the settings of slurm/site.sh.

    If there are more cells than MaxArraySize of the cluster allows, several arrays are submitted.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        dry_run: Print the command and the cells that would be submitted, and stop.
        allow_confounded: Accept cells that differ in more than what the parameters name, such as a learning rate.
    """
    from sinkablate.sweep.submitting import submit as submit_array

    sweep, root = open_sweep(file, out)
    if not dry_run:
        make_root(root)
    check(sweep, root, allow_confounded=allow_confounded)
    for line in submit_array(sweep, root, dry_run=dry_run):
        print(line, flush=True)
    return 0


def status(file: str, out: str | None = None, format: Format = "table") -> int:
    """Show the state of every cell: todo, running, preempted, failed (with the reason) or done.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        format: Format of the output.
    """
    from sinkablate.sweep.live import status_text, table

    sweep, root = open_sweep(file, out)
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
                        "words": status_text(cell, now[cell.id], root),
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
        numbers = ", ".join(f"{number} for {cells} cell{'s' * (cells > 1)}" for number, cells in sorted(counts.items()))
        console.print(
            f"note: cells used different numbers of CPU threads ({numbers}), which can change the last digits",
            markup=False,
            soft_wrap=True,
        )
    return 0


def retry(file: str, out: str | None = None) -> int:
    """Reset failed cells, so that the next `run` or `submit` resumes or restarts them.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
    """
    sweep, root = open_sweep(file, out)
    failed = [cell for cell in sweep.cells if state_of(root / cell.id) is State.FAILED]
    for cell in failed:
        reset(root / cell.id)
        print(f"reset: {cell.id} {cell.label}")
    if not failed:
        print("no cell has failed")
    return 0


def collect(file: str, out: str | None = None, results: str | None = None, overwrite: bool = False) -> int:
    """Write a tidy table with one row per cell, whatever its state, for `compare` and `report`.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        results: Path of the table, .csv or .parquet (default: <out>/results.csv, which is always replaced).
        overwrite: Replace the table that `results` names, if it exists.
    """
    from sinkablate.sweep.collecting import collect as collected
    from sinkablate.sweep.collecting import is_collected

    sweep, root = open_sweep(file, out)
    path = root / "results.csv" if results is None else Path(results)
    if path.suffix not in (".csv", ".parquet"):
        raise UserError(f"results={results}: must end with .csv or .parquet")
    if results and path.exists() and not overwrite:
        raise UserError(f"results={path}: already exists; choose another file or add --overwrite")
    if not is_collected(path):
        refuse_foreign_file(path, key="results", command="sweep collect")
    if not root.is_dir():
        raise UserError(f"out={root}: no cell of this sweep has run there")
    table = collected(sweep, root)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.write_csv(path) if path.suffix == ".csv" else table.write_parquet(path)
    except OSError as error:
        raise UserError(f"results={path}: cannot be written: {error.strerror or error}") from None
    done = int((table["status"] == str(State.DONE)).sum())
    print(f"{path}: {len(table)} cells, {done} done, {int(table['diverged'].sum())} diverged")
    return 0


COMMANDS = {command.__name__: command for command in (plan, run, submit, status, retry, evaluate, collect)}


def help_text() -> str:
    """Return the list of commands with one line each."""
    purposes = {name: (command.__doc__ or "").splitlines()[0] for name, command in COMMANDS.items()}
    lines = "\n".join(f"  {name:<8} {purpose}" for name, purpose in purposes.items())
    return (
        f"usage: sinkablate sweep COMMAND FILE [options]\n\n{lines}\n\n"
        f"FILE is a sweep file or the name of a shipped sweep: {', '.join(shipped_names('sweeps'))}.\n"
        "`sinkablate sweep COMMAND --help` lists the options of a command."
    )


def main(argv: list[str]) -> int:
    """Run one of the commands with its options, and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text())
        return 0
    if argv[0] not in COMMANDS:
        raise UserError(f"sweep {argv[0]}: no such command{did_you_mean_or_list(argv[0], COMMANDS)}")
    try:
        if argv[0] == evaluate.__name__:
            return run_evaluate(argv[1:])
        return int(call(COMMANDS[argv[0]], f"sweep {argv[0]}", argv[1:]))
    except BrokenPipeError:
        raise
    except OSError as error:  # every file here belongs to the sweep
        raise UserError(f"{error.filename or 'sweep'}: {error.strerror or error}") from error
