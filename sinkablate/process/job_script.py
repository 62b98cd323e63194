"""What a run reports to the job script that started it, `slurm/fit.sbatch`. Standard library only.

The script needs the run directory, in which it looks for markers, because the exit code may be that of another task.
"""

import os
from pathlib import Path

RUN_DIR_FILE = "SINKABLATE_RUN_DIR_FILE"
"""Environment variable: path of the file for the run directory; a user's mistake is written to that path plus
`.mistake`."""


def report_run_dir(run_dir: Path) -> None:
    """Write the run directory to the file of the job script, if there is one."""
    _write("", str(run_dir.absolute()))


def report_user_error(line: str) -> None:
    """Tell the job script that the user made a mistake, so that starting the job again would not help."""
    _write(".mistake", line)


def _write(suffix: str, line: str) -> None:
    file = os.environ.get(RUN_DIR_FILE)
    if file:
        Path(f"{file}{suffix}").write_text(f"{line}\n", encoding="utf-8")
