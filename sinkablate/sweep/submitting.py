"""A sweep as a SLURM job array: a list of cells that is never changed once it is submitted."""

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from sinkablate.cells import CONFIG, Cell, arguments
from sinkablate.errors import UserError
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.running import fit_words
from sinkablate.sweep.state import State, states

SCRIPT = Path("slurm") / "sweep.sbatch"
JOBS = "submitted.json"
"""Beside the cells' directories: job id to its list of cells."""


def job_line(sweep: Sweep, cell: Cell, root: Path) -> str:
    """One line of the list: the cell's directory, and quoted words for `slurm/fit.sbatch`, configs first."""
    given = [(key, value) for key, value in arguments(fit_words(sweep, cell, root)[1:]) if key != "ckpt_path"]
    configs = [value for key, value in given if key == CONFIG]
    if not configs:
        raise UserError(f"{sweep.path}: command needs a --config FILE to be submitted")
    words = [",".join(configs), *(f"--{key}={value}" for key, value in given if key != CONFIG)]
    return f"{shlex.quote(str(root / cell.id))} {shlex.join(words)}"


def submit(sweep: Sweep, root: Path, *, dry_run: bool) -> str:
    """Submit the cells that are neither done, failed nor running as one array; the answer of the script.

    Raises:
        UserError: Nothing is left to do, an array of this sweep is still in the queue, or the script refuses.
    """
    if not SCRIPT.is_file():
        raise UserError(f"{SCRIPT}: no such file (seen from {Path.cwd()}); submit from the checkout")
    if not dry_run and shutil.which("sbatch") is None:
        raise UserError("sbatch: no such command; there is no SLURM here (sweep run trains on this machine)")
    queued = _still_queued(root)
    if queued:
        raise UserError(f"{root}: already submitted as job {', '.join(queued)}; wait for it, or scancel it first")
    now = states(sweep.cells, root)
    cells = [cell for cell in sweep.cells if now[cell.id] in (State.TODO, State.PREEMPTED)]
    if not cells:
        raise UserError(f"{root}: nothing to submit: every cell is done, running or failed (sweep retry resets failed)")
    lines = "".join(f"{job_line(sweep, cell, root)}\n" for cell in cells)
    if dry_run:
        return f"{_script('--dry-run', str(len(cells)), str(root / 'cells-0.txt'))}\n{lines}".rstrip()
    root.mkdir(parents=True, exist_ok=True)
    number = next(number for number in range(10**6) if not (root / f"cells-{number}.txt").exists())
    listed = root / f"cells-{number}.txt"
    listed.write_text(lines)
    shutil.copyfile(sweep.path, root / f"sweep-{number}.yaml")
    job = _script(str(len(cells)), str(listed)).split(";")[0]
    (root / JOBS).write_text(json.dumps(_jobs(root) | {job: listed.name}, indent=1) + "\n")
    return f"job {job}: {len(cells)} cells of {listed}"


def _script(*words: str) -> str:
    done = subprocess.run(["bash", str(SCRIPT), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{SCRIPT}: {' '.join((done.stderr or done.stdout).split()).removeprefix('error: ')}")
    return done.stdout.strip()


def _jobs(root: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((root / JOBS).read_text())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise UserError(f"{root / JOBS}: cannot be read") from None
    return found


def _still_queued(root: Path) -> list[str]:
    """Arrays of this sweep that SLURM has not finished with."""
    jobs = _jobs(root)
    if not jobs or shutil.which("squeue") is None:
        return []
    done = subprocess.run(["squeue", "-h", "-o", "%F", "-u", str(os.getuid())], capture_output=True, text=True,
                          check=False)
    return sorted(set(done.stdout.split()) & set(jobs))
