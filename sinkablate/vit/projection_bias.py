"""The biases of the linear maps from tokens to queries, keys and values."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sinkablate.errors import UserError
from sinkablate.vit.anatomy import block_parts
from sinkablate.vit.family import first_of

Projection = Literal["queries", "keys", "values"]
"""What a linear map of attention makes of a token."""


def projection_bias(model: nn.Module, index: int, projection: Projection) -> Tensor | None:
    """Return the bias of the queries, keys or values of block `index`, (H d,), as a view of the model's parameter.

    Returns None if the map has no bias, or is not found. The zeros that BEiT and EVA of timm keep in place of a bias of
    the keys are a buffer and not a bias.
    """
    parts = block_parts(model, index)
    attn, family, position = parts.attn, parts.family, get_args(Projection).index(projection)
    own: Any = first_of(attn, (f"{projection[0]}_bias",))  # EVA stores those of queries and values next to its map
    if own is not None:
        return own if isinstance(own, nn.Parameter) else None
    fused: Any = first_of(attn, family.qkv)
    if isinstance(fused, nn.Module):
        bias: Tensor | None = getattr(fused, "bias", None)
        return None if bias is None else bias.chunk(3)[position]
    separate: Any = first_of(attn, (family.query, family.key, family.value)[position])
    return getattr(separate, "bias", None)


@contextmanager
def without_bias(model: nn.Module, index: int, projection: Projection) -> Iterator[None]:
    """Set the bias of the queries, keys or values of block `index` to zero within a block of code.

    Raises:
        UserError: They have no bias.
    """
    bias = projection_bias(model, index, projection)
    if bias is None:
        raise UserError(f"{type(model).__name__}: the {projection} of block {index} have no bias that could be removed")
    stored = bias.detach().clone()
    with torch.no_grad():
        bias.zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            bias.copy_(stored)
