"""The verb `diagnose`, from its arguments to the files it leaves."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch

from sinkablate.config import ModelChoice, ThresholdConfig
from sinkablate.diagnose.measure import Source, measure_pictures
from sinkablate.diagnose.pictures import Pictures, Preparation, ProbeImages
from sinkablate.diagnose.store import Store, per_image, write_whole
from sinkablate.diagnose.subject import Subject, hugging_face_subject, run_subject, timm_subject
from sinkablate.diagnose.terminal import print_summary
from sinkablate.diagnostics.findings import findings
from sinkablate.diagnostics.geometry import spectral_spikes
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.sensitivity import sensitivity
from sinkablate.diagnostics.tables import block_table, head_table
from sinkablate.errors import UserError
from sinkablate.memory import peak_memory_gib
from sinkablate.report import figures
from sinkablate.run_directory import hold, provenance, release, require_writable, write_json
from sinkablate.vit.anatomy import blocks_of


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
        format: What is printed at the end: a table, or the summary as JSON.

    Raises:
        UserError: For everything that cannot be done as asked.
    """
    for key, value in {"limit": limit, "batch_size": batch_size, "min_events": min_events,
                       "min_side": min_side}.items():
        if value is not None and value < 1:
            raise UserError(f"{key} must be at least 1, got {value}")
    if not out:
        raise UserError("out is empty: name a directory to write")
    subject = _subject(backbone, run, hf)
    thresholds = thresholds or subject.thresholds
    chosen = _blocks(subject, blocks)
    source, where = _source(subject, images, limit, min_side)
    target = _device(device)
    identity = json.loads(json.dumps({
        **subject.description, "images": where, "limit": limit, "min_side": min_side, "blocks": chosen,
        "min_events": min_events, "thresholds": asdict(thresholds)}))
    require_writable(Path(out), "out")
    store = Store(Path(out), identity, overwrite=overwrite)
    quiet = format == "json"
    if not quiet:
        print(f"model: {subject.description['model']}, weights {subject.description['weights']}\n"
              f"preprocessing: {subject.description['preprocessing']}\nimages: {where}", flush=True)
    if not store.finished:
        lock = hold(Path(out), "out")
        try:
            measure_pictures(subject.model.to(target), source, store, thresholds, blocks=chosen,
                             batch_size=batch_size, limit=limit, strict=strict)
            _summarise(store, subject, thresholds, chosen, identity | {"device": str(target)}, min_events)
        finally:
            release(lock)
            _remove_if_empty(Path(out))
    summary: dict[str, Any] = json.loads((Path(out) / "summary.json").read_text())
    print(json.dumps(summary, indent=2)) if quiet else print_summary(summary, out)
    return summary


def _remove_if_empty(out: Path) -> None:
    """What is refused before the first batch leaves nothing behind."""
    with suppress(OSError):
        out.rmdir()


def _subject(backbone: ModelChoice, run: str | None, hf: str | None) -> Subject:
    if sum(x is not None for x in (backbone.name, run, hf)) != 1:
        raise UserError("diagnose needs one model: --backbone.name NAME, --run DIR or --hf FOLDER")
    if run is not None:
        return run_subject(run)
    return timm_subject(backbone) if hf is None else hugging_face_subject(hf)


def _blocks(subject: Subject, blocks: list[int] | None) -> list[int]:
    depth = len(blocks_of(subject.model))
    if blocks == []:
        raise UserError("blocks: name at least one, or leave the key out to measure all")
    for block in blocks or ():
        if not -depth <= block < depth:
            raise UserError(f"blocks: {block} is outside the model's {depth} blocks")
    return sorted({block % depth for block in blocks}) if blocks else list(range(depth))


def _source(subject: Subject, images: str | None, limit: int | None, min_side: int) -> tuple[Source, str]:
    """The pictures, and what to call them."""
    if images is not None:
        return Pictures(images, Preparation(subject.transform, subject.in_chans, min_side)), images
    if subject.data is None:
        raise UserError("images: say what to measure on, a folder, a list, shards, or `builtin`")
    return ProbeImages(subject.data, limit or subject.probe_images), "the run's probe images"


def _device(device: str) -> torch.device:
    try:
        found = torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else \
            torch.device(device)
        torch.zeros(1, device=found).item()  # which a meta device cannot answer
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device}: {(str(error).splitlines() or ['not available'])[0]}") from None
    return found


def _summarise(store: Store, subject: Subject, thresholds: ThresholdConfig, blocks: list[int],
               description: dict[str, Any], min_events: int | None) -> None:
    """Write everything that is derived from the finished batches; `summary.json` last."""
    records, names, faults, seconds, rebuild_error = store.read()
    if records is None:
        store.discard()  # so that the same command looks again once the images are mended
        raise UserError(f"images={description['images']}: none could be read ({len(faults)} skipped; smaller than "
                        f"min_side={description['min_side']} counts as unreadable)")
    out = store.out
    heads, blocks_, grid, survival = _tables(records, subject, thresholds, blocks)
    per_image(out / "per_image.npz", records, names)
    for name, table in {"heads": heads, "blocks": blocks_, "sensitivity": grid}.items():
        write_whole(out / f"{name}.parquet", table.write_parquet)
    least = min_events or (50 if len(names) >= 100 else max(1, len(names) // 2))
    (out / "figures").mkdir(exist_ok=True)
    for name, drawn in {
        "handoff": figures.handoff(blocks_), "frequency": figures.frequency(heads),
        "atlas": figures.atlas(heads, least, thresholds.nop_max, thresholds.broadcast_min, thresholds.rank_max),
        "token_norms": figures.token_norms(blocks_), "sensitivity": figures.sensitivity(grid),
    }.items():
        figures.save(drawn, out / "figures" / name)
    write_json(out / "summary.json", description | findings(records, thresholds, blocks) | {
        "image_count": len(names), "skipped": faults, "min_events": least, "label_survival": survival,
        "spectral_spike_max": heads["spectral_spike"].max(), "seconds": seconds,
        "images_per_second": len(names) / seconds, "rebuild_error": rebuild_error, "peak_memory_gib": peak_memory_gib(),
        "num_prefix_tokens": records.layout.num_prefix, "num_tokens": records.layout.num_tokens, **provenance()})
    store.close()


def _tables(records: Records, subject: Subject, thresholds: ThresholdConfig,
            blocks: list[int]) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, dict[str, dict[str, float | None]]]:
    largest, spike = spectral_spikes(subject.model, blocks)
    heads = head_table(records, thresholds, blocks).with_columns(
        pl.Series("query_key_sigma1", largest.flatten().numpy()), pl.Series("spectral_spike", spike.flatten().numpy()),
    ).with_columns((pl.col("query_key_sigma1") * pl.col("median_sink_token_norm")).alias("sigma1_sink_norm"))
    spikes = heads.group_by("block").agg(pl.col("spectral_spike").max().alias("spectral_spike_max"),
                                         pl.col("spectral_spike").mean().alias("spectral_spike_mean"))
    table = block_table(records, thresholds, blocks).join(spikes, on="block", how="left").sort("block")
    later = [place for place, block in enumerate(blocks) if block != 0]  # block 0 stands apart everywhere
    return heads, table, *sensitivity({name: values[:, later] for name, values in records.heads.items()}, thresholds)
