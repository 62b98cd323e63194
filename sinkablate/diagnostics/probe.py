"""Measure a model without side effects, while it trains or after it is loaded."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.batches import accepted, require_input
from sinkablate.diagnostics.random_state import random_state_kept
from sinkablate.diagnostics.recorder import Recorder
from sinkablate.diagnostics.records import Records
from sinkablate.diagnostics.tap import NonfiniteError, Tap


@contextmanager
def measurement_mode(model: nn.Module) -> Iterator[None]:
    """Run a block of code in eval mode and fp32, without TF32, autocast, autograd and inference mode.

    Afterward, even after an exception, the modes of all modules, random states and settings are restored.
    """
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    precision, cudnn_tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        with (
            random_state_kept(),
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(device.type, enabled=False),
        ):
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            model.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn_tf32
        for module, training in modes:
            module.training = training


def check(model: nn.Module, image: Tensor) -> None:
    """Check on one image (1, C, H, W) that a model can be measured.

    Raises:
        UserError: The model cannot be measured; the message names its family.
    """
    require_input(model, image)
    recorder = Recorder(ThresholdConfig())
    with measurement_mode(model), Tap(model, recorder) as tap:
        tap.run(image)
        recorder.take(np.zeros(1, np.int64))


def record(
    model: nn.Module,
    batches: Iterable[Tensor],
    thresholds: ThresholdConfig,
    blocks: Sequence[int] | None = None,
    memory_mib: int | None = None,
    rebuild: bool = True,
) -> tuple[Records, float]:
    """Record every quantity of a model on batches of images, and leave the model as it was.

    Args:
        model: The original, uncompiled model with fp32 or fp64 weights.
        batches: Images, (B, C, H, W) each, on any device.
        thresholds: Thresholds of the quantities.
        blocks: Indices of the blocks to measure; None means all of them.
        memory_mib: As for `Recorder`.
        rebuild: As for `Tap`.

    Returns:
        The records of all images, and the largest relative error of a rebuilt block.

    Raises:
        NonfiniteError: The activations of a block are NaN or infinite; without `rebuild`, on any batch.
        UserError: There are no images, or the model cannot be measured.
    """
    recorder, parts, count = Recorder(thresholds, memory_mib), [], 0
    with measurement_mode(model), Tap(model, recorder, blocks, rebuild) as tap:
        for batch in accepted(model, batches):
            tap.run(batch)
            parts.append(recorder.take(np.arange(count, count + len(batch)), batch))
            count += len(batch)
    finite = np.all([np.isfinite(part.norms).all((0, 2)) for part in parts], axis=0)
    if not rebuild and not finite.all():
        raise NonfiniteError(f"block {list(tap.parts)[int(finite.argmin())]}: its activations are NaN or infinite")
    return Records.merge(parts), max(tap.rebuild_errors.values())


def probe(
    model: nn.Module,
    images: Tensor,
    order: NDArray[np.int64],
    thresholds: ThresholdConfig,
    batch_size: int = 64,
    memory_mib: int | None = None,
    rebuild: bool = True,
) -> tuple[Records, float]:
    """Measure every block of a model on a part of a set of images.

    Args:
        model: The original, uncompiled model; it is left as it was.
        images: (n, C, H, W), on any device.
        order: Position of each image in the set, (n,), ascending.
        thresholds: Thresholds of the quantities.
        batch_size: Images per forward pass.
        memory_mib: As for `Recorder`.
        rebuild: As for `Tap`.

    Returns:
        The records, and the largest relative error of a rebuilt block.
    """
    records, error = record(model, images.split(batch_size), thresholds, memory_mib=memory_mib, rebuild=rebuild)
    return replace(records, order=order), error
