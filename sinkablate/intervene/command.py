"""The verb `intervene`, from its arguments to the files it leaves."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from sinkablate.config import ModelChoice, SelectionConfig, ThresholdConfig
from sinkablate.diagnose.command import device_of, pictures_of, subject_of
from sinkablate.diagnose.diagnosis import Diagnosis
from sinkablate.diagnose.store import Store, refuse_another
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.diagnostics.rules import Rule, rule_named
from sinkablate.errors import UserError
from sinkablate.files.writing import as_stored
from sinkablate.intervene.edits import parse_edits, selected
from sinkablate.intervene.experiment import Experiment
from sinkablate.intervene.selection import Head, Plan, choose_heads, parse_heads
from sinkablate.intervene.store import Rows
from sinkablate.intervene.terminal import print_findings
from sinkablate.run.directory import require_writable
from sinkablate.run.reading import read_all_arrays, read_json
from sinkablate.vit.anatomy import block_parts, blocks_of

OWN_IMAGES = 256
"""Of a run's own images, at least so many: heads need fifty events."""


def intervene(
    *,
    out: str,
    backbone: ModelChoice = ModelChoice(),
    run: str | None = None,
    hf: str | None = None,
    images: str | None = None,
    diagnosis: str | None = None,
    heads: str = "auto",
    edits: str = "all",
    rule: str | None = None,
    selection: SelectionConfig = SelectionConfig(),
    thresholds: ThresholdConfig | None = None,
    limit: int | None = None,
    min_side: int = 32,
    batch_size: int = 16,
    control_images: int = 64,
    shard: str = "0/1",
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
    trust: bool = False,
    format: Literal["table", "json"] = "table",
) -> dict[str, Any]:
    """Test what labels claim: edit one head at a time and watch the rest of the network.

    Writes rows.parquet (a row per image, head and edit), heads.parquet, classes.parquet, validation.parquet,
    summary.json and figures. The same command again goes on after the last finished images.

    Args:
        out: Directory to write.
        backbone: A timm model (--backbone.name), as it is.
        run: Directory of a run of ours instead; its last checkpoint, on its own probe images by default.
        hf: Local folder of a Hugging Face vision model instead, or a config.json for an untrained one.
        images: A folder, a list file (.txt), one image, WebDataset shards, or `builtin` (scikit-image's photographs).
        diagnosis: Directory of a finished `diagnose` of the same model on the same images; OUT/diagnosis is made if
            there is none.
        heads: Heads to edit, as BLOCK:HEAD,BLOCK:HEAD, on every image; auto takes those with enough events, on the
            images that have one.
        edits: Edits to make, by name with commas between: zero_value, mean_value, donor_value, rotated_value,
            ordinary_value, redirect, random_value, random_head, register, pathway.
        rule: The rule of events and labels; causal by default, adaptive for a toy.
        selection: Which heads auto takes.
        thresholds: The numbers behind quantities and rules; a run's own by default.
        limit: Use the first so many images; of a run's own, 256 or as many as it looked at by default.
        min_side: An image with a shorter side below this many pixels is not used.
        batch_size: Images that are stored together, and so lost together when the command is killed; no number
            depends on it.
        control_images: Images of the controls.
        shard: k/n does the images k, k + n, ...; the last of the n to end makes the tables.
        seed: Of donors, directions and random tokens, together with the image.
        device: auto, cpu, cuda or cuda:1.
        overwrite: Start over in a directory that holds another intervention.
        trust: Run the commands that the configuration of the run names to read its images: the run is yours.
        format: What is printed at the end: tables, or the summary as JSON.

    Raises:
        UserError: For everything that cannot be done as asked, and where a check in float64 fails.
    """
    _refuse_numbers({"limit": limit, "batch_size": batch_size, "min_side": min_side, "control_images": control_images})
    for key, text in {"out": out, "images": images, "diagnosis": diagnosis, "rule": rule}.items():
        if text == "":
            raise UserError(f"{key} is empty")
    names, part = parse_edits(edits), parse_shard(shard)
    if overwrite and part[1] > 1:
        raise UserError("overwrite: shards would wipe out each other's rows; remove the directory first")
    loaded = subject_of("intervene", backbone, run, hf, trust=trust)
    shape = (len(blocks_of(loaded.model)), block_parts(loaded.model, 0).num_heads)
    given = None if heads == "auto" else parse_heads(heads, shape)
    if diagnosis is not None:
        known = _limit_of(Path(diagnosis))
        limit = limit or known
    elif images is None and limit is None:
        limit = max(OWN_IMAGES, loaded.probe_images)
    source, where = pictures_of(loaded, images, limit, min_side)
    refuse_lonely(1 if limit == 1 else len(source), names)
    target = device_of(device)
    about = Diagnosis(
        loaded=loaded,
        source=source,
        where=where,
        thresholds=thresholds or loaded.thresholds,
        blocks=list(range(shape[0])),
        limit=limit,
        min_side=min_side,
    )
    rule = rule or loaded.rule
    gated = any(block_parts(loaded.model, block).gate is not None for block in range(shape[0]))
    chosen = rule_named(rule, about.thresholds, gated=gated)
    identity = as_stored(
        {
            **about.identity(),
            "heads": heads,
            "edits": names,
            "rule": rule,
            "seed": seed,
            "selection": asdict(selection),
            "control_images": control_images,
        }
    )
    if diagnosis is not None:
        _refuse_another_diagnosis(Path(diagnosis), about)
    require_writable(Path(out), "out")
    rows = Rows(Path(out), identity, overwrite=overwrite)
    if not rows.finished:
        rows.open()
        try:
            with rows.alone():
                stored = _diagnosed(about, Path(diagnosis or Path(out) / "diagnosis"), target, made=diagnosis is None)
                plan = _plan(stored, chosen, given, selection, seed)
                refuse_lonely(len(plan.names), names)
                rows.mark()
        except UserError:
            rows.leave()
            raise
        with measurement_mode(loaded.model):
            Experiment(loaded, source, rows, plan, names, target, about.thresholds, chosen, selection).run(
                part, batch_size, control_images
            )
    summary = (
        (read_json(Path(out) / "summary.json") or {})
        if rows.finished
        else {"headline": f"shard {shard} is done; the last of the {part[1]} makes the tables"}
    )
    print(json.dumps(summary, indent=2)) if format == "json" else print_findings(summary, Path(out))
    return summary


def _limit_of(directory: Path) -> int | None:
    """How many images a diagnosis looked at, at most.

    Raises:
        UserError: The directory holds no finished diagnosis.
    """
    if not (directory / "summary.json").is_file() or not (directory / "diagnosis.json").is_file():
        raise UserError(f"diagnosis={directory} holds no finished diagnosis: run `diagnose --out {directory}`")
    limit = (read_json(directory / "diagnosis.json") or {}).get("limit")
    if not isinstance(limit, int | None):
        raise UserError(f"diagnosis={directory}: diagnosis.json is damaged (limit={str(limit)[:40]!r})")
    return limit


def _refuse_another_diagnosis(directory: Path, about: Diagnosis) -> None:
    """See that a given diagnosis is of the same; how many events its figures ask for is its own business."""
    wanted = {key: value for key, value in about.identity().items() if key != "min_events"}
    refuse_another(
        read_json(directory / "diagnosis.json") or {},
        wanted,
        f"diagnosis={directory} is one",
        "diagnose the same model, images and thresholds",
    )


def _diagnosed(about: Diagnosis, directory: Path, device: torch.device, *, made: bool) -> dict[str, Any]:
    """Arrays of a finished diagnosis, which is made where that is ours to do."""
    if made:
        about.finish(Store(directory, about.identity(), overwrite=False), device, batch_size=16, strict=False)
    return read_all_arrays(directory / "per_image.npz")


def _plan(stored: dict[str, Any], rule: Rule, given: list[Head] | None, selection: SelectionConfig, seed: int) -> Plan:
    """The given heads, or those with enough events."""
    plan = Plan.of(stored, rule, given or (), everywhere=given is not None, seed=seed)
    return plan if given is not None else replace(plan, heads=choose_heads(plan.labels, selection))


def _refuse_numbers(numbers: dict[str, int | None]) -> None:
    for key, value in numbers.items():
        least = 2 if key == "control_images" else 1
        if value is not None and value < least:
            raise UserError(f"{key} must be at least {least}, got {value}")


def parse_shard(text: str) -> tuple[int, int]:
    """`k/n` with 0 <= k < n.

    Raises:
        UserError: It is not of this form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"shard={text}: k/n with k from 0 to n - 1, such as 0/4")
    return int(match[1]), int(match[2])


def refuse_lonely(count: int, names: list[str]) -> None:
    """See that there are other images where an edit takes something from them; 0 is an unknown number.

    Raises:
        UserError: There is one image only.
    """
    borrowing = dict.fromkeys(edit.group or edit.name for edit in selected(names) if "donors" in edit.needs)
    if count == 1 and borrowing:
        raise UserError(
            f"edits: {', '.join(borrowing)} take values from other images, but there is only one image; "
            "give more images, or name other edits"
        )
