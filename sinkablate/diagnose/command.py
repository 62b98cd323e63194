"""The verb `diagnose`, from its arguments to the files it leaves."""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from sinkablate.config import ModelChoice, ThresholdConfig
from sinkablate.diagnose.diagnosis import Diagnosis
from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.hugging_face import load_hugging_face
from sinkablate.diagnose.images import ImageSource, InMemoryImages, Preparation
from sinkablate.diagnose.measure import Source
from sinkablate.diagnose.model import LoadedModel, load_timm
from sinkablate.diagnose.store import Store
from sinkablate.diagnose.terminal import print_summary
from sinkablate.errors import UserError, first_line
from sinkablate.run.directory import require_writable
from sinkablate.run.reading import read_json
from sinkablate.vit.anatomy import block_numbers


def diagnose(
    *,
    out: str,
    backbone: ModelChoice = ModelChoice(),
    run: str | None = None,
    hf: str | None = None,
    images: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
    blocks: list[int] | None = None,
    thresholds: ThresholdConfig | None = None,
    min_events: int | None = None,
    min_side: int = 32,
    strict: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    format: Literal["table", "json"] = "table",
) -> dict[str, Any]:
    """Measure what the sinks of a model do: which heads sink, where, of which kind, and how sure the label is.

    Writes per_image.npz, heads.parquet, blocks.parquet, sensitivity.parquet, summary.json and figures. The same
    command again goes on after the last finished batch.

    Args:
        out: Directory to write.
        backbone: A timm model (--backbone.name), as it is.
        run: Directory of a run of ours instead; its last checkpoint, on its own probe images by default.
        hf: Local folder of a Hugging Face vision model instead, or a config.json for an untrained one.
        images: A folder, a list file (.txt), one image, WebDataset shards, or `builtin` (scikit-image's photographs).
        limit: Measure the first so many images.
        batch_size: Images per forward pass; it changes speed and memory only.
        device: auto, cpu, cuda or cuda:1.
        blocks: Numbers of the blocks to measure, negative ones from the last; all by default.
        thresholds: The numbers behind quantities and rules; a run's own by default.
        min_events: The atlas shows heads with at least so many events: 50, or half the images if they are under 100.
        min_side: An image with a shorter side below this many pixels is not measured.
        strict: Stop at an image that cannot be read instead of skipping and counting it.
        overwrite: Start over in a directory that holds another diagnosis.
        trust: Run the commands that the configuration of the run names to read its images: the run is yours.
        format: What is printed at the end: a table, or the summary as JSON.

    Raises:
        UserError: For everything that cannot be done as asked.
    """
    for key, value in {
        "limit": limit,
        "batch_size": batch_size,
        "min_events": min_events,
        "min_side": min_side,
    }.items():
        if value is not None and value < 1:
            raise UserError(f"{key} must be at least 1, got {value}")
    if not out:
        raise UserError("out is empty: name a directory to write")
    loaded = subject_of("diagnose", backbone, run, hf, trust=trust)
    source, where = pictures_of(loaded, images, limit, min_side)
    target = device_of(device)
    diagnosis = Diagnosis(
        loaded=loaded,
        source=source,
        where=where,
        thresholds=thresholds or loaded.thresholds,
        blocks=block_numbers(loaded.model, blocks),
        limit=limit,
        min_side=min_side,
        min_events=min_events,
    )
    require_writable(Path(out), "out")
    store = Store(Path(out), diagnosis.identity(), overwrite=overwrite)
    quiet = format == "json"
    if not quiet:
        print(
            f"model: {loaded.description['model']}, weights {loaded.description['weights']}\n"
            f"preprocessing: {loaded.description['preprocessing']}\nimages: {where}",
            flush=True,
        )
    diagnosis.finish(store, target, batch_size=batch_size, strict=strict)
    summary = read_json(Path(out) / "summary.json") or {}
    print(json.dumps(summary, indent=2)) if quiet else print_summary(summary, diagnosis.thresholds, out)
    return summary


def subject_of(verb: str, backbone: ModelChoice, run: str | None, hf: str | None, *, trust: bool) -> LoadedModel:
    """The one model that was named.

    Raises:
        UserError: None or several were, or it cannot be had.
    """
    if sum(x is not None for x in (backbone.name, run, hf)) != 1:
        raise UserError(f"{verb} needs one model: --backbone.name NAME, --run DIR or --hf FOLDER")
    if run is not None:
        return load_from_run(run, trust=trust)
    return load_timm(backbone) if hf is None else load_hugging_face(hf)


def pictures_of(loaded: LoadedModel, images: str | None, limit: int | None, min_side: int) -> tuple[Source, str]:
    """The pictures, and what to call them.

    Raises:
        UserError: There are none of that name, or the model takes others.
    """
    if images is not None:
        if loaded.transform is None:
            raise UserError(f"images={images}: a toy takes its own sequences only, leave the key out")
        return ImageSource(images, Preparation(loaded.transform, loaded.in_chans, min_side)), images
    if loaded.probe_set is None:
        raise UserError("images: say what to measure on, a folder, a list, shards, or `builtin`")
    return InMemoryImages(loaded.probe_set(limit or loaded.probe_images)), "the run's probe images"


def device_of(device: str) -> torch.device:
    """A device by name; `auto` is the GPU where there is one.

    Raises:
        UserError: There is no such device.
    """
    try:
        found = (
            torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)
        )
        torch.zeros(1, device=found).item()  # which a meta device cannot answer
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device}: {first_line(error)}") from None
    return found
