"""Add test-time registers to a loaded model, after finding their neurons on images."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice

import torch
from torch import Tensor

from sinkablate.config import RegisterNeuronConfig
from sinkablate.data.errors import DataError
from sinkablate.diagnose.images import ImageSource, InMemoryImages, Preparation
from sinkablate.diagnose.measure import Source
from sinkablate.diagnose.model import LoadedModel
from sinkablate.diagnostics.batches import stacked
from sinkablate.diagnostics.register_neurons import find_register_neurons
from sinkablate.errors import UserError, require_at_least
from sinkablate.files.writing import as_stored
from sinkablate.vit.test_time_registers import add_registers, require_supported

OWN_IMAGES = "the run's probe images"
BATCH = 16
"""Images per forward pass."""


def with_test_time_registers(
    loaded: LoadedModel, count: int, config: RegisterNeuronConfig, device: torch.device
) -> LoadedModel:
    """Return a loaded model with test-time registers, or without if their number is zero.

    The description of the result states the registers, or None, so that results with and without them are kept apart.

    Args:
        loaded: The model, which is changed in place.
        count: Number of registers.
        config: The neurons whose activations they take over, and the images on which those are found.
        device: Where the model runs.

    Raises:
        UserError: The model cannot have them, or no image can be read.
    """
    require_at_least(count, 0, "test_time_registers")
    if not count:
        if config != RegisterNeuronConfig():
            raise UserError("register_neurons has no effect without test-time registers: add --test_time_registers 1")
        return replace(loaded, description=loaded.description | {"test_time_registers": None})
    if loaded.toy is not None:
        raise UserError("test_time_registers: a toy cannot be given any; leave the option out")
    require_supported(loaded.model)
    source, where = _source(loaded, config)
    model = loaded.model.to(device)
    neurons = find_register_neurons(model, lambda: _batches(source, where, config.limit), config)
    add_registers(model, count, neurons.by_block())
    treatment = {"count": count, **asdict(config), "images": where, "neurons": sorted(neurons.neurons)}
    return replace(
        loaded, description=as_stored(loaded.description | {"test_time_registers": treatment}), register_neurons=neurons
    )


def _source(loaded: LoadedModel, config: RegisterNeuronConfig) -> tuple[Source, str]:
    """Return the images on which the neurons are found, and their name."""
    if config.images is None and loaded.probe_set is not None:
        return InMemoryImages(loaded.probe_set(loaded.probe_images)), OWN_IMAGES
    where = config.images or "builtin"
    assert loaded.transform is not None
    try:
        return ImageSource(where, Preparation(loaded.transform, loaded.in_chans, min_side=1)), where
    except UserError as error:  # names the key of the images that are measured
        message = str(error)
        raise UserError(f"register_neurons.{message}" if message.startswith("images=") else message) from None


def _batches(source: Source, where: str, limit: int) -> Iterator[Tensor]:
    """Yield the first images, (B, C, H, W).

    Raises:
        UserError: An image cannot be read.
    """
    images = islice(source.start(0), limit)
    while batch := list(islice(images, BATCH)):
        try:
            yield stacked([image.load() for image in batch])
        except DataError as error:
            raise UserError(f"register_neurons.images={where}: {error}") from None
