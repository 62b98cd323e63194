"""A sweep as SLURM job arrays, each with a list of cells that is never changed once it is submitted."""

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
"""Path of the script in a checkout, which may have been adapted to a cluster; otherwise the shipped one is used."""
JOBS = "submitted.json"
"""Beside the cells' directories: job id to its list of cells."""


def job_line(sweep: Sweep, cell: Cell, root: Path) -> str:
    """One line of the list: the cell's directory, and quoted words for `slurm/fit.sbatch`, configs first.

    Raises:
        UserError: The command names no config, or one whose path the script would split.
    """
    given = [(key, value) for key, value in parse_words(fit_words(sweep, cell, root)[1:]) if key != "ckpt_path"]
    configs = [value for key, value in given if key == CONFIG]
    if not configs:
        raise UserError(f"{sweep.path}: command needs a --config FILE to be submitted")
    if any("," in config for config in configs):
        raise UserError(
            f"{sweep.path}: --config {', '.join(configs)}: a comma in the name of a config cannot be "
            "submitted; rename it"
        )
    words = [",".join(configs), *(f"--{key}={value}" for key, value in given if key != CONFIG)]
    return f"{shlex.quote(str(root / cell.id))} {shlex.join(words)}"


def submit(sweep: Sweep, root: Path, *, dry_run: bool) -> Iterator[str]:
    """Submit the cells that are neither done, failed nor running; yields a line for each array.

    The cells are one array, or as many as SLURM needs for their number. Each is written down as soon as it is queued.

    Raises:
        UserError: Nothing is left to do, an array of this sweep is still in the queue, or the script refuses.
    """
    if not dry_run and shutil.which("sbatch") is None:
        raise UserError("sbatch: no such command; there is no SLURM here (sweep run trains on this machine)")
    queued = _still_queued(root)
    if queued:
        raise UserError(f"{root}: already submitted as job {', '.join(queued)}; wait for it, or scancel it first")
    now = states(sweep.cells, root)
    cells = [cell for cell in sweep.cells if now[cell.id] in (State.TODO, State.PREEMPTED)]
    if not cells:
        raise UserError(f"{root}: nothing to submit: every cell is done, running or failed (sweep retry resets failed)")
    lines = [job_line(sweep, cell, root) for cell in cells]
    number = next(number for number in range(10**6) if not (root / f"cells-{number}.txt").exists())
    most = _largest_array() or len(lines)
    for start in range(0, len(lines), most):
        try:
            yield _submit_array(sweep, root, lines[start : start + most], number + start // most, dry_run=dry_run)
        except UserError as error:
            rest = f"; {start} of {len(lines)} cells are queued, submit again when these have ended" if start else ""
            raise UserError(f"{error}{rest}") from error


def _submit_array(sweep: Sweep, root: Path, lines: list[str], number: int, *, dry_run: bool) -> str:
    """Submit some cells as one array with a list and a copy of the sweep file of its own."""
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
    """Tasks that SLURM takes in one array; None where it cannot be asked."""
    if shutil.which("scontrol") is None:
        return None
    said = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)
    if found is None:
        return None
    if int(found[1]) < 1:
        raise UserError("MaxArraySize=0: this SLURM takes no job arrays (sweep run trains on this machine)")
    return int(found[1])


def _script(*words: str) -> str:
    script = SCRIPT if SCRIPT.is_file() else shipped_root() / SCRIPT
    done = subprocess.run(["bash", str(script), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{script}: {' '.join((done.stderr or done.stdout).split()).removeprefix('error: ')}")
    return done.stdout.strip()


def _jobs(root: Path) -> dict[str, str]:
    return read_notes(
        root / JOBS, "it names the arrays that were submitted; remove it if squeue shows none of them any more"
    )


def _still_queued(root: Path) -> list[str]:
    """Arrays of this sweep that SLURM has not finished with."""
    jobs = _jobs(root)
    if not jobs or shutil.which("squeue") is None:
        return []
    done = subprocess.run(
        ["squeue", "-h", "-o", "%F", "-u", str(os.getuid())], capture_output=True, text=True, check=False
    )
    return sorted(set(done.stdout.split()) & set(jobs))
