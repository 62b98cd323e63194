"""The command `sweep evaluate`."""

from collections.abc import Sequence

from sinkablate.errors import UserError, require_at_least
from sinkablate.process.cpus import allowed_cpus
from sinkablate.sweep.opening import open_sweep
from sinkablate.sweep.state import last_line


def evaluate(
    file: str, out: str | None = None, jobs: int | None = None, in_process: bool = False, options: Sequence[str] = ()
) -> int:
    """Evaluate the finished cells; `collect` adds the numbers to its table. Repeat the command to resume.

    All options of `evaluate`, such as --tasks, --seeds and --segmentation.protocol, are passed on to it. The results of
    a cell are in its directory, in the folder `evaluation`, and the output is in `evaluation.log`. Tasks that are there
    are not computed again. Diverged cells are left out.

    Args:
        file: Sweep file (a W&B grid), or the name of a shipped sweep.
        out: Directory of the sweep (default: runs/<name>).
        jobs: Number of cells to evaluate at the same time (default: one per GPU, or per CPU core without a GPU).
        in_process: Evaluate the cells one after the other in this process, which saves small cells the import time.
        options: Options of `evaluate`.
    """
    from sinkablate.sweep.evaluating import LOG, evaluated_here, evaluated_in_processes, finished_cells
    from sinkablate.sweep.running import Stop, visible_devices

    if in_process and jobs not in (None, 1):
        raise UserError(f"jobs={jobs}: --in_process evaluates one cell at a time; leave one of the two out")
    jobs = len(visible_devices()) or len(allowed_cpus()) if jobs is None else jobs
    require_at_least(jobs, 1, "jobs")
    sweep, root = open_sweep(file, out)
    cells, stop, failed, ended = finished_cells(sweep, root), Stop(), 0, 0
    results = (
        evaluated_here(cells, root, options) if in_process else evaluated_in_processes(cells, root, options, jobs, stop)
    )
    for cell, code in results:
        ended += 1
        failed += code != 0
        line = f"{cell.id} {cell.label}"
        print(f"failed: {line}: {last_line(root / cell.id, LOG)}" if code else f"evaluated: {line}", flush=True)
    print(f"{sweep.name}: {ended - failed} of {len(sweep.cells)} cells evaluated, {failed} failed; directory: {root}")
    if stop.count:
        print("stopped; the same command resumes")
        return 130
    return 1 if failed else 0


def run_evaluate(argv: list[str]) -> int:
    """Run the command; the options of the command `evaluate` are checked and passed on as words."""
    from sinkablate.sweep.evaluating import split_options

    own, passed_on = split_options(evaluate, argv)
    return evaluate(**own, options=passed_on)
