"""What a run tells the job script that started it, `slurm/fit.sbatch`. Standard library only.

The script looks for markers in the run directory, because the exit code may be another task's.
"""

import os
from pathlib import Path

RUN_DIR_FILE = "SINKABLATE_RUN_DIR_FILE"
"""Environment variable: where the script wants to read the run directory, and `.mistake` behind it a user's mistake."""


def tell_run_dir(run_dir: Path) -> None:
    """Say where this run is, if somebody wants to know."""
    _tell("", str(run_dir.absolute()))


def tell_mistake(line: str) -> None:
    """Say that the user made a mistake: starting the job again would not help."""
    _tell(".mistake", line)


def _tell(suffix: str, line: str) -> None:
    file = os.environ.get(RUN_DIR_FILE)
    if file:
        Path(f"{file}{suffix}").write_text(f"{line}\n")
