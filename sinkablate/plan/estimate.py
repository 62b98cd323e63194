"""Estimate the needs of a training run from its model alone, on the meta device: tensors have shapes but no content."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from sinkablate.plan.operations import without_content

Forward = Callable[[Sequence[nn.Module], Tensor], object]
"""Forward pass of a training step, from the modules that hold the parameters and a batch to the outputs."""
MOMENTS = {"sgd": 1, "lion": 1, "nadam": 2, "adan": 3}
"""Tensors that an optimizer keeps per parameter; the Adam family, including LAMB, keeps two."""


@dataclass(frozen=True)
class Estimate:
    """Parameters, FLOPs and memory of a training run."""

    parameters: int
    trainable: int
    flops_per_image: int
    """FLOPs of the forward pass; a multiply-add counts as two, and a training step takes about three times as many."""
    activation_bytes_per_image: int
    """Activations kept for the backward pass."""
    state_bytes: int
    """Weights, gradients and optimizer state."""
    checkpoint_bytes: int
    """Weights, their moving averages, and optimizer state."""
    optimizer_bytes_per_step: int
    """Bytes that an optimizer step reads and writes: weights, gradients and optimizer state, each once."""


def estimate(model: Any, run: Forward, shape: tuple[int, ...], *, opt: str, half: bool) -> Estimate:
    """Estimate the needs of a training run.

    Args:
        model: The task (an `ImageTask`), on any device; a copy without content is used.
        run: Forward pass of a training step.
        shape: Shape of one image, (C, H, W), or of its views, (V, C, H, W).
        opt: timm's name for the optimizer.
        half: Whether activations have 16 bits (bf16-mixed, 16-mixed).
    """
    bare = without_content(model, "meta").train()
    of_two, of_four = (_activations(bare, run, torch.empty(count, *shape, device="meta")) for count in (2, 4))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        bare.requires_grad_(False)  # the counter's hooks fail on a view of a parameter made without gradients
        run(bare.eval().parts(), torch.empty(1, *shape, device="meta"))
    sizes = [p.numel() * p.element_size() for p in model.parameters()]
    trainable = [p for p in model.parameters() if p.requires_grad]
    trained = sum(p.numel() * p.element_size() for p in trainable)
    moments = next((count for name, count in MOMENTS.items() if name in opt), 2) * trained
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    return Estimate(
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in trainable),
        flops_per_image=counter.get_total_flops(),
        activation_bytes_per_image=(of_four - of_two) // 2 // (2 if half else 1),
        state_bytes=sum(sizes) + trained + moments,
        checkpoint_bytes=sum(sizes) + buffers + moments,
        optimizer_bytes_per_step=3 * trained + 2 * moments,
    )


def _activations(model: Any, run: Forward, images: Tensor) -> int:
    """Return the bytes of all storages that the backward pass would read, except parameters and buffers."""
    own = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    saved: dict[int, tuple[Tensor, int]] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = (tensor, storage.nbytes())  # kept alive, so that no address is reused
        return tensor

    with saved_tensors_hooks(record, lambda tensor: tensor):
        run(model.parts(), images)
    return sum(size for _, size in saved.values())
