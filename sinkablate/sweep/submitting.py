"""Submit a sweep as SLURM job arrays, each with a list of cells that never changes after submission."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.files.shipped import shipped_root
from sinkablate.files.writing import write_json, write_text
from sinkablate.run.cells import CONFIG, Cell, parse_words
from sinkablate.sweep.grid import Sweep
from sinkablate.sweep.running import fit_words
from sinkablate.sweep.state import State, read_notes, states

SCRIPT = Path("slurm") / "sweep.sbatch"
"""Path of the script in the working directory, if it is a checkout; otherwise the shipped script is used."""
JOBS = "submitted.json"
"""File next to the directories of the cells: job id -> its list of cells."""


def job_line(sweep: Sweep, cell: Cell, root: Path) -> str:
    """Return one line of the list: the directory of the cell, and quoted words for `fit.sbatch`, configs first.

    Raises:
        UserError: The command names no config, or a config whose path contains a comma.
    """
    given = [(key, value) for key, value in parse_words(fit_words(sweep, cell, root)[1:]) if key != "ckpt_path"]
    configs = [value for key, value in given if key == CONFIG]
    if not configs:
        raise UserError(f"{sweep.path}: command: must contain --config FILE to be submitted")
    if any("," in config for config in configs):
        raise UserError(
            f"{sweep.path}: --config {', '.join(configs)}: commas separate configs on a cluster; rename the file"
        )
    words = [",".join(configs), *(f"--{key}={value}" for key, value in given if key != CONFIG)]
    return f"{shlex.quote(str(root / cell.id))} {shlex.join(words)}"


def submit(sweep: Sweep, root: Path, *, dry_run: bool) -> Iterator[str]:
    """Submit the cells that are neither done, failed nor running; yields one line of text per array.

    All cells go into one array, or into several if SLURM limits its size. Each array is recorded as soon as it is
    queued.

    Raises:
        UserError: No cell is left to submit, an array of this sweep is still queued, or the script fails.
    """
    if not dry_run and shutil.which("sbatch") is None:
        raise UserError(
            "sbatch: no such command; without SLURM use `sinkablate sweep run`, which trains on this machine"
        )
    queued = _still_queued(root)
    if queued:
        raise UserError(f"{root}: already submitted as job {', '.join(queued)}; wait for it or cancel it (scancel)")
    now = states(sweep.cells, root)
    cells = [cell for cell in sweep.cells if now[cell.id] in (State.TODO, State.PREEMPTED)]
    if not cells:
        raise UserError(f"{root}: every cell is done, running or failed; `sinkablate sweep retry` resets failed cells")
    lines = [job_line(sweep, cell, root) for cell in cells]
    number = _free_number(root)
    most = _largest_array() or len(lines)
    for start in range(0, len(lines), most):
        try:
            yield _submit_array(sweep, root, lines[start : start + most], number + start // most, dry_run=dry_run)
        except UserError as error:
            rest = f"; {start} of {len(lines)} cells are queued; submit the rest when these have ended" if start else ""
            raise UserError(f"{error}{rest}") from error


def _free_number(root: Path) -> int:
    """Return the first number from which on no file has the name of a list of cells or of a copy of the sweep file."""
    names = [path.name for path in root.iterdir()] if root.is_dir() else []
    taken = [int(match[1]) for name in names if (match := re.fullmatch(r"(?:cells|sweep)-(\d+)\.(?:txt|yaml)", name))]
    return max(taken, default=-1) + 1


def _submit_array(sweep: Sweep, root: Path, lines: list[str], number: int, *, dry_run: bool) -> str:
    """Submit cells as one array, with its own list of cells and its own copy of the sweep file."""
    listed = root / f"cells-{number}.txt"
    if dry_run:
        return "\n".join([_script("--dry-run", str(len(lines)), str(listed)), *lines])
    root.mkdir(parents=True, exist_ok=True)
    write_text(listed, "".join(f"{line}\n" for line in lines))
    shutil.copyfile(sweep.path, root / f"sweep-{number}.yaml")
    job = _script(str(len(lines)), str(listed)).split(";")[0]
    write_json(root / JOBS, _jobs(root) | {job: listed.name})
    return f"job {job}: {len(lines)} cells of {listed}"


def _largest_array() -> int | None:
    """Return the largest number of tasks in one array that SLURM accepts; None if it is unknown."""
    if shutil.which("scontrol") is None:
        return None
    config = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    if match is None:
        return None
    if int(match[1]) < 1:
        raise UserError(
            "MaxArraySize=0: this SLURM does not allow job arrays; use `sinkablate sweep run` on this machine"
        )
    return int(match[1])


def _script(*words: str) -> str:
    """Run the script that submits an array, and return its output."""
    script = SCRIPT if SCRIPT.is_file() else shipped_root() / SCRIPT
    done = subprocess.run(["bash", str(script), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{script}: {' '.join((done.stderr or done.stdout).split()).removeprefix('error: ')}")
    return done.stdout.strip()


def _jobs(root: Path) -> dict[str, str]:
    """Return the submitted arrays: job id -> list of cells."""
    return read_notes(root / JOBS, "it names the submitted arrays; remove it if squeue no longer shows any of them")


def _still_queued(root: Path) -> list[str]:
    """Return the job ids of arrays of this sweep that are still queued or running."""
    jobs = _jobs(root)
    if not jobs or shutil.which("squeue") is None:
        return []
    done = subprocess.run(
        ["squeue", "-h", "-o", "%F", "-u", str(os.getuid())], capture_output=True, text=True, check=False
    )
    return sorted(set(done.stdout.split()) & set(jobs))
