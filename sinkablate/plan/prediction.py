"""Predict how long a run trains, and how long the measurements of its sinks take, from the operations of both."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from sinkablate.callbacks.sinks import SinkDiagnostics
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.tap import Tap
from sinkablate.plan.devices import Device
from sinkablate.plan.estimate import Estimate, Forward
from sinkablate.plan.operations import Kernel, Work, count_work

MOST_OPERATIONS = 5_000
"""Number of operations from which on the rest of a batch is not counted but extrapolated."""


@dataclass(frozen=True)
class Workload:
    """The work of one device during a run."""

    batch: Work
    """Forward and backward pass of one batch."""
    optimizer: Work
    """One optimizer step."""
    measurement: Work | None
    """One measurement of the sinks; None if they are not measured."""


def training_batch(parts: Sequence[nn.Module], run: Forward, shape: tuple[int, ...], *, half: bool) -> Work:
    """Count the forward and the backward pass of one batch; the loss itself is not counted.

    Args:
        parts: The modules that hold the parameters.
        run: Forward pass of a training step.
        shape: Shape of the batch of one device.
        half: Whether matrix products have 16 bits (bf16-mixed, 16-mixed).
    """

    def program(bare: nn.ModuleList) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            outputs = run(list(bare.train()), torch.empty(shape))
        trained = [output for output in tree_leaves(outputs) if output.requires_grad]
        torch.autograd.backward(trained, [torch.empty_like(output) for output in trained])

    return count_work(nn.ModuleList(parts), program)


def optimizer_step(needs: Estimate, average: nn.Module | None) -> Work:
    """Return the work of one optimizer step, as if it were a single operation.

    Args:
        needs: The needs of the run.
        average: The moving average of the weights, which is updated as well, if there is one.
    """
    averaged = 0 if average is None else 3 * sum(p.numel() * p.element_size() for p in average.parameters())
    return Work({Kernel(0, needs.optimizer_bytes_per_step + averaged, half=False): 1})


def measurement(backbone: nn.Module, image: tuple[int, ...], images: int, diagnostics: SinkDiagnostics) -> Work:
    """Count one measurement of the sinks without what the host does with its numbers, such as tables and figures.

    Args:
        backbone: The measured model.
        image: Shape of an image, (C, H, W).
        images: Number of images that one device measures.
        diagnostics: The settings of the measurement.
    """

    full, rest = divmod(images, diagnostics.batch_size)
    sizes = {diagnostics.batch_size: full, rest: min(1, rest)}
    works = [_measured_batch(backbone, image, size, diagnostics) * times for size, times in sizes.items() if times]
    return sum(works, Work())


def _measured_batch(backbone: nn.Module, image: tuple[int, ...], images: int, diagnostics: SinkDiagnostics) -> Work:
    """Count the measurement of one batch.

    A measurement is divided into parts that fit into memory, and counting a large batch would take minutes. So the
    batch is enlarged from one image until it is complete or has `MOST_OPERATIONS`; the rest is extrapolated.
    """

    def program(bare: nn.Module) -> None:
        recorder = Recorder(diagnostics.thresholds, diagnostics.memory_mib)
        with Tap(bare.eval(), recorder, rebuild=False) as tap:
            tap.run(torch.empty(counted, *image, device="meta"))
            recorder.finish()

    counted = 1
    while (work := count_work(backbone, program, "meta")).launches < MOST_OPERATIONS and counted < images:
        counted = min(4 * counted, images)
    return work * (images / counted)


@dataclass(frozen=True)
class Length:
    """How often the parts of a run take place."""

    batches: int
    steps: int
    measurements: int


def predict(load: Workload, device: Device, batch_size: int, length: Length | None) -> dict[str, Any]:
    """Return the predicted seconds of a run as plain values; those that depend on an unknown length are None.

    Args:
        load: The work of one device.
        device: Every device of the run.
        batch_size: Images of a batch, over all devices.
        length: The length of the run, if it is known.
    """
    parts = {"training_batch": load.batch, "optimizer_step": load.optimizer, "measurement": load.measurement}
    seconds = {name: 0.0 if work is None else device.seconds(work).total for name, work in parts.items()}
    run: dict[str, float | None] = dict.fromkeys(
        ("measurements", "training_seconds", "diagnostics_seconds", "diagnostics_share", "seconds", "images_per_second")
    )
    if length is not None:
        training = length.batches * seconds["training_batch"] + length.steps * seconds["optimizer_step"]
        diagnostics = length.measurements * seconds["measurement"]
        run = {
            "measurements": length.measurements,
            "training_seconds": training,
            "diagnostics_seconds": diagnostics,
            "diagnostics_share": diagnostics / training,
            "seconds": training + diagnostics,
            "images_per_second": length.batches * batch_size / (training + diagnostics),
        }
    described = {name: None if work is None else _described(work, device) for name, work in parts.items()}
    return {"device": device.name, "efficiency": device.efficiency, **described, **run}


def _described(work: Work, device: Device) -> dict[str, Any]:
    """Return the counts of a program and its seconds as plain values."""
    numbers = {
        "flops": work.flops,
        "bytes": work.bytes,
        "operations": work.launches,
        "synchronizations": work.synchronizations,
    }
    seconds = {f"{name}_seconds": value for name, value in asdict(device.seconds(work)).items()}
    return {name: round(number) for name, number in numbers.items()} | seconds
