"""Several linear layers that read the same input, as one matrix product."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROW_MULTIPLE = 8
"""The number of rows of a stacked weight is a multiple of this: tensor cores read 16-bit results in groups of eight."""


def is_plain_linear(layer: nn.Module) -> bool:
    """Return whether a layer computes `F.linear` with its own weight and does nothing else.

    A layer that was replaced or parametrized, has hooks or a `forward` of its own, or has a weight of another type,
    such as a sharded or a quantized one, has to be called.
    """
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    changed = any(hooks) or "forward" in vars(layer)
    return type(layer) is nn.Linear and type(layer.weight) is nn.Parameter and not changed


def stacked_rows(*layers: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Return the weight (R, D) and the bias (R,) of a layer that computes several layers of input width D at once.

    Rows of zeros follow those of the layers, up to a multiple of `ROW_MULTIPLE`. The bias of a layer without one is
    zero; there is no bias if no layer has one.
    """
    weight = torch.cat([layer.weight for layer in layers])
    padding = -len(weight) % ROW_MULTIPLE
    weight = F.pad(weight, (0, 0, 0, padding)) if padding else weight
    if all(layer.bias is None for layer in layers):
        return weight, None
    biases = [weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias for layer in layers]
    return weight, torch.cat([*biases, weight.new_zeros(padding)])


@contextmanager
def called_separately(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Call each of the layers in the block of code, so that none is computed as a part of a larger product."""
    hooks = [layer.register_forward_pre_hook(lambda *_: None) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
