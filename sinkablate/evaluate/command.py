"""The command `evaluate`: from its arguments to the files it writes."""

import json
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch

from sinkablate.config import (
    DiscoveryConfig,
    EvaluationConfig,
    FeatureConfig,
    KnnConfig,
    LinearConfig,
    ModelChoice,
    QuantizationConfig,
    RegisterNeuronConfig,
    SegmentationConfig,
    SinksConfig,
    SourceConfig,
)
from sinkablate.diagnose.command import find_device, load_model
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnose.test_time_registers import with_test_time_registers
from sinkablate.distributed.gather import on_every_rank, rank_and_world
from sinkablate.distributed.launch import process_group
from sinkablate.errors import UserError, require_at_least
from sinkablate.evaluate.cache import FeatureCache
from sinkablate.evaluate.evaluation import Evaluation
from sinkablate.evaluate.store import FEATURES, Store, require_own
from sinkablate.evaluate.subject import subject_of
from sinkablate.evaluate.tasks import tasks_named
from sinkablate.evaluate.terminal import print_results
from sinkablate.run.directory import require_writable
from sinkablate.run.evaluations import evaluation_folder, treatment_of


@dataclass(frozen=True, kw_only=True)
class DataChoice:
    """The labeled images of `knn` and `linear`."""

    source: SourceConfig | None = None
    """Where they are, with the keys of `fit`; by default those of the run, otherwise the embedded images."""


def evaluate(
    *,
    out: str | None = None,
    tasks: str = "knn",
    backbone: ModelChoice = ModelChoice(),
    run: str | None = None,
    hf: str | None = None,
    test_time_registers: int = 0,
    register_neurons: RegisterNeuronConfig = RegisterNeuronConfig(),
    data: DataChoice = DataChoice(),
    features: FeatureConfig = FeatureConfig(),
    knn: KnnConfig = KnnConfig(),
    linear: LinearConfig = LinearConfig(),
    discovery: DiscoveryConfig = DiscoveryConfig(),
    quantization: QuantizationConfig = QuantizationConfig(),
    segmentation: SegmentationConfig = SegmentationConfig(),
    sinks: SinksConfig = SinksConfig(),
    seeds: str = "0",
    floors: bool = True,
    batch_size: int = 32,
    device: str = "auto",
    overwrite: bool = False,
    trust: bool = False,
    format: Literal["table", "json"] = "table",
) -> dict[str, Any]:
    """Measure how good the frozen features of a model are, next to a random backbone and to raw pixels.

    Writes evaluation.json, evaluation.parquet (one row per task, metric, class or image, and seed) and figures. If the
    command is interrupted, the same command resumes: finished features and tasks are kept. Tasks can be added later.

    Args:
        out: Directory for the results; by default RUN/evaluation, which `sweep collect` and `report` read. With
            test-time registers it is another folder of the run, from which `sweep collect` makes another row.
        tasks: Names of tasks, separated by commas: knn, linear, segmentation, discovery, sinks, quantization.
        backbone: A timm model (--backbone.name).
        run: Directory of a run, in place of a timm model; its last checkpoint is evaluated, by default on the images of
            the run.
        hf: A Hugging Face model, in place of a timm model: a local folder, USER/NAME on the hub, or a config.json for
            untrained weights.
        test_time_registers: Number of registers to add without training (arXiv 2506.08010): tokens that take over the
            activations of the neurons that write outlier tokens. For a model without registers.
        register_neurons: How these neurons are found, and random ones as a control.
        data: The labeled images of knn and linear.
        features: The features of an image, and their cache.
        knn: Settings of knn.
        linear: Settings of linear.
        segmentation: Settings of segmentation, with its images.
        discovery: Settings of discovery.
        quantization: Settings of quantization.
        sinks: Settings of sinks.
        seeds: Seeds of the probes, separated by commas; each probe is repeated with every seed.
        floors: Measure the random backbone and raw pixels, too; without them, less than half of the time is needed.
        batch_size: Images per forward pass; it changes speed and memory, and results by rounding errors only.
        device: auto (the GPU if there is one), cpu, cuda or cuda:1.
        overwrite: Start over in a directory that holds another evaluation. Cached features are kept.
        trust: Allow shell commands that the configuration of the run uses to read its images; only for your own runs.
        format: What to print at the end: a table, or evaluation.json.

    Raises:
        UserError: An argument is wrong, the model or the images cannot be read, or a task cannot run.
    """
    require_at_least(batch_size, 1, "batch_size")
    folder = _folder(out, run, treatment_of(test_time_registers, register_neurons.choice))
    chosen = tasks_named(tasks)
    config = EvaluationConfig(
        features=features,
        knn=knn,
        linear=linear,
        segmentation=segmentation,
        discovery=discovery,
        quantization=quantization,
        sinks=sinks,
    )
    require_writable(folder, "out")
    require_own(folder)
    with process_group() as local_rank:
        target = on_every_rank(lambda: find_device(_device_of(device, local_rank)))
        loaded = on_every_rank(
            lambda: with_test_time_registers(
                load_model("evaluate", backbone, run, hf, None, trust=trust, reads_texts=False),
                test_time_registers,
                register_neurons,
                target,
            )
        )
        _announce(loaded)
        evaluation = on_every_rank(
            lambda: Evaluation(
                subject=subject_of(
                    loaded,
                    config,
                    FeatureCache(Path(features.cache or folder / FEATURES)),
                    data.source,
                    device=target,
                    seeds=parse_seeds(seeds),
                    batch_size=batch_size,
                    note=cache(lambda sentence: print(sentence, file=sys.stderr, flush=True)),  # each sentence once
                ),
                tasks=chosen,
                floors=floors,
                run_id=loaded.run_id,
            )
        )
        store = on_every_rank(lambda: Store(folder, evaluation.identity(), evaluation.settings(), overwrite=overwrite))
        results = evaluation.finish(store)
        if rank_and_world()[0] == 0:
            if format == "json":
                print(json.dumps(results, indent=2))
            else:
                print_results(store.rows, loaded.title, str(folder))
    return results


def _folder(out: str | None, run: str | None, treatment: str) -> Path:
    """Return the directory for the results.

    Raises:
        UserError: None is given, and there is no run to put them into.
    """
    if out == "" or (out is None and run is None):
        raise UserError("out: name a directory for the results; only a run has a default")
    return evaluation_folder(Path(str(run)), treatment) if out is None else Path(out)


def _announce(loaded: LoadedModel) -> None:
    """Print on the first rank how the weights fit the model, and how the neurons of test-time registers were found."""
    neurons = loaded.register_neurons
    notes = [*loaded.notes, *([f"test-time registers: {neurons.sentence}"] if neurons else [])]
    for note in notes if rank_and_world()[0] == 0 else ():
        print(note, file=sys.stderr, flush=True)


def _device_of(device: str, local_rank: int) -> str:
    """Return the device of a rank: `auto` and `cuda` are a GPU of its own, if several ranks share a machine."""
    if rank_and_world()[1] > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{local_rank % torch.cuda.device_count()}"
    return device


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse whole numbers separated by commas.

    Raises:
        UserError: One of them is not a whole number, or is named twice.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise UserError(f"seeds={text}: expected distinct whole numbers separated by commas, such as 42,43,44")
    return tuple(map(int, words))
