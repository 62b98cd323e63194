"""A measuring pass through a model that leaves no trace, for the training callback and pretrained models alike."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.records import Recorder, Records
from sinkablate.diagnostics.tap import Tap


@contextmanager
def measurement_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, fp32 without TF32, no autocast, no graph; modes, random states and settings come back, always."""
    modes = [(module, module.training) for module in model.modules()]
    device = next(model.parameters()).device
    cuda = [device] if device.type == "cuda" else []
    python, numpy = random.getstate(), np.random.get_state()
    precision, cudnn_tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        with torch.random.fork_rng(devices=cuda), torch.no_grad(), torch.autocast(device.type, enabled=False):
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
            model.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn_tf32
        for module, training in modes:
            module.training = training
        random.setstate(python)
        np.random.set_state(numpy)


def check(model: nn.Module, image: Tensor) -> None:
    """Send one image (1, C, H, W) through the tap.

    Raises:
        UserError: The model cannot be measured; the message names its family.
    """
    recorder = Recorder(ThresholdConfig())
    with measurement_mode(model), Tap(model, recorder) as tap:
        tap.run(image)
        recorder.take(np.zeros(1, np.int64))


def probe(
    model: nn.Module, images: Tensor, order: NDArray[np.int64], thresholds: ThresholdConfig, batch_size: int = 64
) -> tuple[Records, float]:
    """Measure every block of a model on a set of images.

    Args:
        model: The original, uncompiled timm model; it is left as it was.
        images: (n, C, H, W), on any device.
        order: Position of each image in the whole set, (n,).
        thresholds: Of the quantities and rules.
        batch_size: Images per forward pass.

    Returns:
        The records, and the largest relative error of a rebuilt block.
    """
    device = next(model.parameters()).device
    recorder = Recorder(thresholds)
    parts = []
    with measurement_mode(model), Tap(model, recorder) as tap:
        for start in range(0, len(images), batch_size):
            tap.run(images[start : start + batch_size].to(device))
            parts.append(recorder.take(order[start : start + batch_size]))
    return Records.merge(parts), max(tap.rebuild_errors.values())
