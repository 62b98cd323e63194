"""The diagnosis that an intervention starts from: a given one of the same model and images, or a new one."""

from pathlib import Path
from typing import Any

import torch

from sinkablate.config import ThresholdConfig
from sinkablate.diagnose.command import open_inputs
from sinkablate.diagnose.diagnosis import Diagnosis
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnose.store import Store
from sinkablate.errors import UserError
from sinkablate.intervene.editor import COPIED
from sinkablate.intervene.store import Rows
from sinkablate.run.directory import DIAGNOSIS
from sinkablate.run.reading import read_all_arrays, read_json, require_arrays
from sinkablate.run.resumable import refuse_another
from sinkablate.vit.anatomy import blocks_of

OWN_IMAGES = 256
"""Smallest number of a run's own images that are used by default: a head needs fifty events."""

NEEDED = ("image_names", "image_numbers", "sink_idx", "sink_type", *COPIED.values())
"""Arrays of a diagnosis that are read."""


def diagnosis_of(
    loaded: LoadedModel,
    images: str | None,
    texts: str | None,
    given: str | None,
    limit: int | None,
    min_side: int,
    thresholds: ThresholdConfig,
) -> Diagnosis:
    """Return the diagnosis that the intervention needs; a given one sets the number of images."""
    if given is not None:
        of_diagnosis = _limit_of(Path(given))
        limit = limit or of_diagnosis
    elif images is None and texts is None and limit is None:
        limit = max(OWN_IMAGES, loaded.probe_images)
    source, where = open_inputs(loaded, images, texts, limit, min_side)
    return Diagnosis(
        loaded=loaded,
        source=source,
        where=where,
        thresholds=thresholds,
        blocks=list(range(len(blocks_of(loaded.model)))),
        limit=limit,
        min_side=min_side,
    )


def _limit_of(directory: Path) -> int | None:
    """Return the largest number of images that a diagnosis measured; None without a limit.

    Raises:
        UserError: The directory holds no finished diagnosis.
    """
    if not (directory / "summary.json").is_file() or not (directory / DIAGNOSIS).is_file():
        raise UserError(f"diagnosis={directory} holds no finished diagnosis: run `diagnose --out {directory}`")
    limit = (read_json(directory / DIAGNOSIS) or {}).get("limit")
    if not isinstance(limit, int | None):
        raise UserError(f"diagnosis={directory}: {DIAGNOSIS} is damaged (limit={str(limit)[:40]!r})")
    return limit


def require_same_diagnosis(directory: Path, about: Diagnosis) -> None:
    """Check that a given diagnosis is of the same model, images and thresholds; `min_events` of its figures may differ.

    Raises:
        UserError: It is not.
    """
    expected = {key: value for key, value in about.identity().items() if key != "min_events"}
    refuse_another(
        read_json(directory / DIAGNOSIS) or {},
        expected,
        f"diagnosis={directory} was made",
        "diagnose the same model, images and thresholds",
    )


def measured_arrays(about: Diagnosis, store: Rows, given: str | None, device: torch.device) -> dict[str, Any]:
    """Return the arrays of the given diagnosis, or of a new one in OUT/diagnosis."""
    store.open()
    with store.abandoned_on_error(), store.alone():
        directory = Path(given or store.out / "diagnosis")
        if given is None:
            about.finish(Store(directory, about.identity(), overwrite=False), device, batch_size=16, strict=False)
        path = directory / "per_image.npz"
        measured = read_all_arrays(path)
        require_arrays(path, measured, NEEDED)
        return measured
