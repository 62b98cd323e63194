"""The command `diagnose`: from its arguments to the files it writes."""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from sinkablate.config import ModelChoice, RegisterNeuronConfig, ThresholdConfig
from sinkablate.diagnose.diagnosis import Diagnosis
from sinkablate.diagnose.from_run import load_from_run
from sinkablate.diagnose.hugging_face import USE_TEXTS, load_hugging_face
from sinkablate.diagnose.images import ImageSource, InMemoryImages, Preparation
from sinkablate.diagnose.measure import Source
from sinkablate.diagnose.model import LoadedModel, load_timm
from sinkablate.diagnose.store import Store
from sinkablate.diagnose.terminal import print_summary
from sinkablate.diagnose.test_time_registers import with_test_time_registers
from sinkablate.diagnose.texts import TextSource
from sinkablate.diagnostics.rules import rule_named
from sinkablate.errors import UserError, first_line, require_at_least
from sinkablate.run.directory import require_writable
from sinkablate.run.reading import read_json
from sinkablate.vit.anatomy import block_numbers, has_output_gate


def diagnose(
    *,
    out: str,
    backbone: ModelChoice = ModelChoice(),
    run: str | None = None,
    hf: str | None = None,
    test_time_registers: int = 0,
    register_neurons: RegisterNeuronConfig = RegisterNeuronConfig(),
    images: str | None = None,
    texts: str | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    memory_mib: int | None = None,
    device: str = "auto",
    blocks: list[int] | None = None,
    thresholds: ThresholdConfig | None = None,
    rule: str | None = None,
    min_events: int | None = None,
    min_side: int = 32,
    strict: bool = False,
    overwrite: bool = False,
    trust: bool = False,
    format: Literal["table", "json"] = "table",
) -> dict[str, Any]:
    """Measure what the attention sinks of a model do: which heads sink, on which tokens, and to what effect.

    Writes per_image.npz, heads.parquet, blocks.parquet, sensitivity.parquet, norm_histograms.parquet, token maps (for
    images), summary.json and figures. If the command is interrupted, the same command resumes after the last finished
    batch.

    Args:
        out: Directory for the results.
        backbone: A timm model (--backbone.name).
        run: Directory of a run, in place of a timm model; its last checkpoint is measured, by default on the probe
            images of the run.
        hf: A Hugging Face model, in place of a timm model: a local folder, USER/NAME on the hub, or a config.json for
            untrained weights.
        test_time_registers: Number of registers to add without training (arXiv 2506.08010): tokens that take over the
            activations of the neurons that write outlier tokens. For a model without registers.
        register_neurons: How these neurons are found, and random ones as a control.
        images: A folder, a list file (.txt), one image, WebDataset shards, or `builtin` (photographs of scikit-image).
        texts: A text file, in place of images, for a Hugging Face language model: UTF-8, one text per line; or
            `builtin`, 64 English passages.
        limit: Number of images to measure, from the first; all by default.
        batch_size: Images per forward pass; changes speed and memory only.
        memory_mib: Memory of the blocks that are measured together, in MiB: 2 on a CPU and 2048 on a GPU by default. It
            changes speed and memory only; 0 measures every block by itself.
        device: auto (the GPU if there is one), cpu, cuda or cuda:1.
        blocks: Indices of the blocks to measure; negative ones count from the last. All by default.
        thresholds: Thresholds of the quantities and rules; those of the run by default.
        rule: The rule that the headline, the table and the figures show first; causal by default, adaptive for toys
            and language models.
        min_events: Fewest events at which the atlas colors a head; 50, or half the images if there are fewer than 100.
        min_side: Skip images whose shorter side has fewer pixels than this.
        strict: Stop at an image that cannot be read, instead of skipping and counting it.
        overwrite: Start from scratch in a directory that holds another diagnosis.
        trust: Allow shell commands that the configuration of the run uses to read its images; only for your own runs.
        format: What to print at the end: a table, or the summary as JSON.

    Raises:
        UserError: An argument is wrong, or the model or the images cannot be read or measured.
    """
    for key, value in {
        "limit": limit,
        "batch_size": batch_size,
        "min_events": min_events,
        "min_side": min_side,
    }.items():
        require_at_least(value, 1, key)
    require_at_least(memory_mib, 0, "memory_mib")
    if not out:
        raise UserError("out is empty; name a directory for the results")
    loaded = load_model("diagnose", backbone, run, hf, texts, trust=trust)
    source, where = open_inputs(loaded, images, texts, limit, min_side)
    target = find_device(device)
    loaded = with_test_time_registers(loaded, test_time_registers, register_neurons, target)
    diagnosis = Diagnosis(
        loaded=loaded,
        source=source,
        where=where,
        thresholds=thresholds or loaded.thresholds,
        blocks=block_numbers(loaded.model, blocks),
        limit=limit,
        min_side=min_side,
        min_events=min_events,
        rule=rule,
    )
    rule_named(diagnosis.shown_rule, diagnosis.thresholds, gated=has_output_gate(loaded.model))
    require_writable(Path(out), "out")
    store = Store(Path(out), diagnosis.identity(), overwrite=overwrite)
    quiet = format == "json"
    if not quiet:
        print(
            f"model: {loaded.title}, weights {loaded.description['weights']}",
            *loaded.notes,
            f"preprocessing: {loaded.description['preprocessing']}",
            f"{loaded.unit}s: {where}",
            *([f"test-time registers: {neurons.sentence}"] if (neurons := loaded.register_neurons) else []),
            sep="\n",
            flush=True,
        )
    diagnosis.finish(store, target, batch_size=batch_size, memory_mib=memory_mib, strict=strict)
    summary = read_json(Path(out) / "summary.json") or {}
    print(json.dumps(summary, indent=2)) if quiet else print_summary(
        summary, diagnosis.thresholds, out, diagnosis.shown_rule
    )
    return summary


def load_model(
    command: str,
    backbone: ModelChoice,
    run: str | None,
    hf: str | None,
    texts: str | None,
    *,
    trust: bool,
    reads_texts: bool = True,
) -> LoadedModel:
    """Load the model that the arguments of a command name; `reads_texts` is whether the command has `--texts`.

    Raises:
        UserError: They name no model or several, it does not read what the arguments name, or it cannot be loaded.
    """
    if sum(x is not None for x in (backbone.name, run, hf)) != 1:
        raise UserError(f"{command} needs exactly one model: --backbone.name NAME, --run DIR or --hf FOLDER")
    if texts is not None and hf is None:
        raise UserError(f"texts={texts}: only a Hugging Face model (--hf FOLDER) reads texts; use --images")
    if run is not None:
        return load_from_run(run, trust=trust)
    if hf is None:
        return load_timm(backbone)
    remedy = USE_TEXTS if reads_texts else f"{command} takes image models only"
    return load_hugging_face(hf, texts=texts is not None, remedy=remedy)


def open_inputs(
    loaded: LoadedModel, images: str | None, texts: str | None, limit: int | None, min_side: int
) -> tuple[Source, str]:
    """Open the images or texts to measure on; returns them and their name.

    Raises:
        UserError: They do not exist, none are named and the model has none of its own, or it is a toy.
    """
    if texts is not None and images is not None:
        raise UserError(f"images={images}: the model is measured on texts={texts}; name one of the two")
    if texts is not None:
        assert loaded.encode is not None
        return TextSource(texts, loaded.encode), texts
    if images is not None:
        if loaded.transform is None:
            raise UserError(f"images={images}: a toy is measured on its own sequences; leave the key out")
        return ImageSource(images, Preparation(loaded.transform, loaded.in_chans, min_side)), images
    if loaded.probe_set is None:
        raise UserError("images is missing; name a folder, a list, shards, or `builtin`")
    return InMemoryImages(loaded.probe_set(limit or loaded.probe_images)), "the run's probe images"


def find_device(device: str) -> torch.device:
    """Return a device by name; `auto` is the GPU if there is one.

    Raises:
        UserError: The device does not exist or cannot be used.
    """
    try:
        name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        chosen = torch.device(name)
        torch.zeros(1, device=chosen).item()  # fails for a missing GPU, and for the meta device
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device}: {first_line(error)}") from None
    return chosen
