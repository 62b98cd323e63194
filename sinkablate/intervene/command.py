"""The command `intervene`, from its arguments to the files it writes."""

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from sinkablate.config import ModelChoice, RegisterNeuronConfig, SelectionConfig, ThresholdConfig
from sinkablate.diagnose.command import find_device, load_model
from sinkablate.diagnose.images import InMemoryImages
from sinkablate.diagnose.test_time_registers import with_test_time_registers
from sinkablate.diagnostics.rules import rule_named
from sinkablate.errors import UserError, require_at_least
from sinkablate.files.writing import as_stored
from sinkablate.intervene.diagnosed import diagnosis_of, measured_arrays, require_same_diagnosis
from sinkablate.intervene.edits import parse_edits
from sinkablate.intervene.effects import judge_of
from sinkablate.intervene.experiment import Experiment, require_donors
from sinkablate.intervene.selection import parse_heads
from sinkablate.intervene.store import Rows
from sinkablate.intervene.stored_run import StoredRun
from sinkablate.intervene.terminal import print_findings
from sinkablate.run.directory import require_writable
from sinkablate.run.reading import read_json
from sinkablate.vit.anatomy import block_parts, blocks_of, has_output_gate


def intervene(
    *,
    out: str,
    backbone: ModelChoice = ModelChoice(),
    run: str | None = None,
    hf: str | None = None,
    test_time_registers: int = 0,
    register_neurons: RegisterNeuronConfig = RegisterNeuronConfig(),
    images: str | None = None,
    texts: str | None = None,
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
    """Test whether labels hold: edit one head at a time and measure the effect on the output of the network.

    Writes rows.parquet (one row per image, head and edit), heads.parquet, classes.parquet, validation.parquet,
    summary.json and figures. Running the same command again resumes after the last stored images.

    Args:
        out: Directory to write.
        backbone: A timm model (--backbone.name), as it is.
        run: Directory of a run, in place of a timm model; its last checkpoint, on its own probe images by default.
        hf: A Hugging Face model, in place of a timm model: a local folder, USER/NAME on the hub, or a config.json for
            untrained weights.
        test_time_registers: Number of registers to add without training (arXiv 2506.08010): tokens that take over the
            activations of the neurons that write outlier tokens. For a model without registers.
        register_neurons: How these neurons are found, and random ones as a control.
        images: A folder, a list file (.txt), one image, WebDataset shards, or `builtin` (scikit-image's photographs).
        texts: A text file, in place of images, for a Hugging Face language model: UTF-8, one text per line; or
            `builtin`, 64 English passages.
        diagnosis: Directory of a finished `diagnose` of the same model on the same images. By default the model is
            diagnosed first, into OUT/diagnosis.
        heads: Heads to edit on every image, as BLOCK:HEAD,BLOCK:HEAD. auto chooses the heads with enough events, and
            edits each on the images on which it has an event.
        edits: Names of edits, separated by commas: zero_value (zero ablation), mean_value (mean ablation), donor_value
            (resample ablation, or activation patching), rotated_value, ordinary_value, redirect (attention knockout),
            random_value, random_head, register, pathway.
        rule: Rule that defines events and labels; causal by default, adaptive for toys and language models.
        selection: Which heads auto chooses.
        thresholds: Thresholds of quantities and rules; a run's own by default.
        limit: Largest number of images. For a run's own images the default is 256, or the number of its probe images
            if that is larger.
        min_side: Skip images whose shorter side has fewer pixels.
        batch_size: Number of images that are stored together: if the command is killed, at most these are edited
            again. It does not change any number.
        control_images: Number of images of the controls.
        shard: k/n edits the images k, k + n, k + 2n, ...; the last of the n shards to finish writes the tables.
        seed: Seed of donors, directions and random tokens, together with the name of the image.
        device: auto, cpu, cuda or cuda:1.
        overwrite: Start over in a directory that holds another intervention.
        trust: Run the commands that the configuration of the run names to read its images. Use it for your own runs.
        format: What to print at the end: tables, or the summary as JSON.

    Raises:
        UserError: An argument is wrong, the directory cannot be written, or a check in float64 fails.
    """
    _require_values({"limit": limit, "batch_size": batch_size, "min_side": min_side, "control_images": control_images})
    _require_texts({"out": out, "images": images, "texts": texts, "diagnosis": diagnosis, "rule": rule})
    names, part = parse_edits(edits), parse_shard(shard)
    if overwrite and part[1] > 1:
        raise UserError("overwrite=true: each shard would delete the rows of the others; remove the directory first")
    target = find_device(device)
    loaded = load_model("intervene", backbone, run, hf, texts, trust=trust)
    loaded = with_test_time_registers(loaded, test_time_registers, register_neurons, target)
    depth = len(blocks_of(loaded.model))
    given = None if heads == "auto" else parse_heads(heads, (depth, block_parts(loaded.model, 0).num_heads))
    about = diagnosis_of(loaded, images, texts, diagnosis, limit, min_side, thresholds or loaded.thresholds)
    source = about.source
    require_donors(1 if about.limit == 1 else len(source), names)
    rule = rule or loaded.rule
    chosen = rule_named(rule, about.thresholds, gated=has_output_gate(loaded.model))
    identity = {
        **about.identity(),
        "heads": heads,
        "edits": names,
        "rule": rule,
        "seed": seed,
        "selection": asdict(selection),
        "control_images": control_images,
    }
    if diagnosis is not None:
        require_same_diagnosis(Path(diagnosis), about)
    require_writable(Path(out), "out")
    store = Rows(Path(out), as_stored(identity), overwrite=overwrite)
    if not store.finished:
        measured = measured_arrays(about, store, diagnosis, target)
        targets = source.targets if isinstance(source, InMemoryImages) else None
        with store.abandoned_on_error():
            experiment = Experiment.prepare(
                loaded.model,
                measured,
                chosen,
                heads=given,
                edits=names,
                selection=selection,
                judge=judge_of(loaded, targets),
                seed=seed,
            )
        with store.alone():
            store.mark()
        StoredRun(experiment, loaded, source, store, target, about.thresholds, chosen).run(
            part, batch_size, control_images
        )
    summary = _summary_of(store, shard)
    print(json.dumps(summary, indent=2)) if format == "json" else print_findings(summary, Path(out), loaded.notes)
    return summary


def _require_values(numbers: dict[str, int | None]) -> None:
    for key, value in numbers.items():
        require_at_least(value, 2 if key == "control_images" else 1, key)


def _require_texts(texts: dict[str, str | None]) -> None:
    for key, text in texts.items():
        if text == "":
            raise UserError(f"{key} is empty; give it a value or leave it out")


def _summary_of(store: Rows, shard: str) -> dict[str, Any]:
    """Return the stored summary, or a sentence while other shards are still to come."""
    if store.finished:
        return read_json(store.out / "summary.json") or {}
    parts = shard.partition("/")[2]
    return {"headline": f"Shard {shard} is finished; the last of the {parts} shards to finish writes the tables."}


def parse_shard(text: str) -> tuple[int, int]:
    """Parse `k/n` with 0 <= k < n.

    Raises:
        UserError: The text has another form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UserError(f"shard={text}: expected k/n with k from 0 to n - 1, such as 0/4")
    return int(match[1]), int(match[2])
