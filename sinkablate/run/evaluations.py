"""The numbers of the evaluation next to a run, for `sweep collect` and `report`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.run.directory import EVALUATION
from sinkablate.run.identity import run_id
from sinkablate.run.reading import read_json

PROTOCOL = "protocol"
"""Last part of the name under which the protocol of a task is listed, as in `segmentation/protocol`."""


TREATMENT = "test_time_registers"
"""Column of a collected table that tells the evaluations of a run apart, and key of `evaluation.json`."""
UNTREATED = "none"
"""Name of an evaluation without test-time registers."""
_FOLDER = "evaluation"


def evaluation_folder(run_dir: Path, treatment: str = UNTREATED) -> Path:
    """Return where `evaluate --run RUN` writes by default.

    Args:
        run_dir: Directory of the run.
        treatment: What `treatment_of` returns for the model that is evaluated.
    """
    return run_dir / (_FOLDER if treatment == UNTREATED else f"{_FOLDER}-{TREATMENT}-{treatment.replace(' ', '-')}")


def treatment_of(count: int, choice: str) -> str:
    """Return the name of a treatment: `none`, `1` for one test-time register, or `1 random` with random neurons."""
    if not count:
        return UNTREATED
    return str(count) if choice == "largest" else f"{count} {choice}"


def treatment_phrase(registers: Mapping[str, Any] | None) -> str:
    """Return the test-time registers of a model as they follow its name in titles; empty if it has none.

    Args:
        registers: What the description of a model says about them: `count` and `choice`.
    """
    if not registers:
        return ""
    count, control = registers["count"], " of random neurons" if registers["choice"] == "random" else ""
    return f", {count} test-time register{'' if count == 1 else 's'}{control}"


def treatments_of(run_dir: Path) -> list[str]:
    """Return the treatments with which a run has been evaluated, without `none`, in alphabetical order."""
    prefix = f"{_FOLDER}-{TREATMENT}-"
    folders = sorted(path.name for path in run_dir.glob(f"{prefix}*") if path.is_dir())
    return [name.removeprefix(prefix).replace("-", " ") for name in folders]


def evaluation_numbers(run_dir: Path, treatment: str = UNTREATED) -> dict[str, float | str | None]:
    """Return the numbers of the evaluation in the directory of a run by name, such as `knn/acc1`.

    The protocol of each task is listed as `TASK/protocol`. A number that is not finite is None. The result is empty if
    the run has not been evaluated there, or if no task has finished yet.

    Args:
        run_dir: Directory of the run.
        treatment: What `treatment_of` returns for the model that was evaluated.

    Raises:
        UserError: The file is damaged, or is the evaluation of another run or of other weights of this run.
    """
    path = evaluation_folder(run_dir, treatment) / EVALUATION
    content = read_json(path)
    if content is None:
        return {}
    tasks, protocols = content.get("tasks"), content.get("protocols", {})
    if not isinstance(tasks, dict) or not isinstance(protocols, dict):
        raise UserError(f"{path}: damaged; evaluate the run again with --overwrite")
    if content.get("run_id") not in (None, run_id(run_dir)):
        raise UserError(f"{path}: belongs to another run; evaluate this run again with --overwrite")
    trained = (read_json(run_dir / "summary.json") or {}).get("steps")
    if protocols and trained is not None and content.get("step") not in (None, trained):
        raise UserError(
            f"{path}: belongs to the weights at step {content['step']}, but the run has {trained} steps; evaluate it "
            "again with --overwrite"
        )
    numbers = {
        name: float(value) if isinstance(value, int | float) else None
        for name, value in content.items()
        if "/" in name and name.partition("/")[0] in tasks
    }
    return numbers | {f"{task}/{PROTOCOL}": str(protocol) for task, protocol in protocols.items()}
