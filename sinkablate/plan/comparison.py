"""Compare a prediction with the throughput of a finished run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sinkablate.errors import UserError
from sinkablate.run.cells import parse_words
from sinkablate.run.directory import CONFIG
from sinkablate.run.reading import read_json

NEEDED = ("images_per_second", "device", "threads")
"""Keys of `summary.json` that are compared, or that say what the run was computed on."""

ALLOWED = ("run", "run_dir", "device", "efficiency", "images", "trust", "json")
"""Keys that can be given together with `--run`: they do not change what was trained."""


def require_unchanged(args: Sequence[str]) -> None:
    """Refuse keys that change the configuration of the run with which the prediction is compared.

    Args:
        args: Arguments of `plan`, in which `--run DIR` was expanded to `--config DIR/config.yaml --run_dir DIR`.

    Raises:
        UserError: There is such a key.
    """
    given = parse_words(args)
    run = Path(next(value for key, value in given if key == "run"))
    for key, value in given:
        if key not in ALLOWED and (key, value) != ("config", str(run / CONFIG)):
            raise UserError(
                f"{key}={value}: cannot be combined with --run, which compares the run as it was trained; to plan a "
                f"change of it, replace --run {run} with --config {run / CONFIG}"
            )


def measured_run(run: Path) -> dict[str, Any]:
    """Return the summary of a finished run.

    Raises:
        UserError: The run has not finished, or its summary has no throughput.
    """
    summary = read_json(run / "summary.json")
    if summary is None:
        raise UserError(f"run={run}: has not finished (no summary.json); plan only compares finished runs")
    if missing := [key for key in NEEDED if summary.get(key) is None]:
        raise UserError(f"run={run}: its summary.json has no {', '.join(missing)}; plan --config plans it without them")
    return summary


def compare_with_run(summary: dict[str, Any], prediction: dict[str, Any] | None) -> dict[str, Any]:
    """Return the throughput of a run and, if there is a prediction, how many times as long the run really took.

    Both include the measurements of the sinks, and neither includes validation.

    Args:
        summary: The summary of the run.
        prediction: The prediction for its configuration.
    """
    measured, predicted = summary["images_per_second"], prediction and prediction["images_per_second"]
    return {
        "images_per_second": measured,
        "device": summary["device"],
        "threads": summary["threads"],
        "measured_over_predicted_seconds": predicted / measured if predicted else None,
    }
