"""The numbers of the evaluation next to a run, for `sweep collect` and `report`."""

from pathlib import Path

from sinkablate.errors import UserError
from sinkablate.run.directory import EVALUATION
from sinkablate.run.identity import run_id
from sinkablate.run.reading import read_json

PROTOCOL = "protocol"
"""Last part of the name under which the protocol of a task is listed, as in `segmentation/protocol`."""


def evaluation_folder(run_dir: Path) -> Path:
    """Return where `evaluate --run RUN` writes by default."""
    return run_dir / "evaluation"


def evaluation_numbers(run_dir: Path) -> dict[str, float | str | None]:
    """Return the numbers of the evaluation in the directory of a run by name, such as `knn/acc1`.

    The protocol of each task is listed as `TASK/protocol`. A number that is not finite is None. The result is empty if
    the run has not been evaluated there, or if no task has finished yet.

    Raises:
        UserError: The file is damaged, or is the evaluation of another run or of other weights of this run.
    """
    path = evaluation_folder(run_dir) / EVALUATION
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
