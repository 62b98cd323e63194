"""Run a model as if its linear layers were quantized, with ranges from calibration images.

Axis letters: B images, N tokens, K input channels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from sinkablate.attention.linear import called_separately
from sinkablate.errors import UserError
from sinkablate.evaluate.quantizer import (
    FULL_RANGE,
    Range,
    Scheme,
    image_ranges,
    percentile_ranges,
    simulate,
    simulate_weight,
    token_ranges,
)


@dataclass(frozen=True)
class LayerRanges:
    """The activations of one layer's input on n calibration images."""

    tokens: Range
    """The range of every token, (n, N) each."""
    tails: Range
    """The range of every image without the tails of its values, (n,) each."""

    def static(self, scheme: Scheme, excluded: Tensor | None = None) -> Range:
        """Return the range that a scheme uses for every image, two scalars.

        With a percentile, it is the mean of the ranges of the individual calibration images.

        Args:
            scheme: A scheme with static ranges.
            excluded: Tokens of the calibration images that the range leaves out, (n, N) bool; not used with a
                percentile, nor by a layer with a different number of tokens.
        """
        if scheme.percentile != FULL_RANGE:
            return Range(self.tails.low.mean(), self.tails.high.mean())
        low, high = self.tokens
        if excluded is not None and excluded.shape == low.shape:
            low, high = low.masked_fill(excluded, 0), high.masked_fill(excluded, 0)
        return Range(low.amin(), high.amax())


Calibration = Mapping[str, LayerRanges]
"""Name of a linear layer -> its ranges; layers whose weights the model does not read are missing."""


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers of a model by name, in the order of its modules."""
    return {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def as_tokens(x: Tensor) -> Tensor:
    """Return the input of a linear layer as (B, N, K); N is 1 for a pooled one (B, K)."""
    return x[:, None] if x.ndim == 2 else x.flatten(1, -2)


class _LinearCalls(TorchFunctionMode):
    """Passes the input of linear layers through a function, whether a layer is called or only its weight is used.

    BEiT and EVA of timm compute queries, keys and values with `F.linear` and the weight of a layer that is not called.

    Args:
        layers: The layers by name.
        change: From the name of a layer and its input (B, N, K) to the input that it reads instead.
    """

    def __init__(self, layers: Mapping[str, nn.Linear], change: Callable[[str, Tensor], Tensor]) -> None:
        super().__init__()
        self.names = {id(layer.weight): name for name, layer in layers.items()}
        self.change = change
        self.read: set[str] = set()
        """Layers whose weight is used by another function than `F.linear`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            call = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            name, x = self.names.get(id(call["weight"])), call["input"]
            return func(**call | ({} if name is None else {"input": self.change(name, as_tokens(x)).view_as(x)}))
        result = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self.read |= {self.names[id(leaf)] for leaf in tree_leaves((args, kwargs)) if id(leaf) in self.names}
        return result


def calibrate(
    model: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], Any], percentile: float
) -> Calibration:
    """Record the ranges of the input of every linear layer.

    Args:
        model: A model in eval mode.
        batches: Calibration images, (B, C, H, W) each, on the model's device.
        forward: Runs the model on a batch.
        percentile: Share of the values below the upper end of `tails`, in percent.

    Raises:
        UserError: The weight of a layer is used in another way than by `F.linear`.
    """
    layers = linear_layers(model)
    parts: dict[str, list[tuple[Tensor, ...]]] = {}

    def observe(name: str, x: Tensor) -> Tensor:
        low, high = token_ranges(x)
        parts.setdefault(name, []).append((low[..., 0], high[..., 0], *percentile_ranges(x, percentile)))
        return x

    for batch in batches:
        with called_separately(layers.values()), _LinearCalls(layers, observe) as calls:
            forward(batch)
        if missed := [name for name in layers if name in calls.read - parts.keys()]:
            raise UserError(
                f"tasks=quantization: {type(model).__name__} uses the weights of {', '.join(missed)} without calling "
                "F.linear, so these layers cannot be quantized; leave quantization out for this model"
            )
    ranges = {}
    for name in layers.keys() & parts.keys():
        low, high, tail_low, tail_high = (torch.cat(tensors) for tensors in zip(*parts[name], strict=True))
        ranges[name] = LayerRanges(Range(low, high), Range(tail_low, tail_high))
    return {name: ranges[name] for name in layers if name in ranges}


class Simulation:
    """Context manager in which the linear layers of a model compute as if they were quantized.

    On exit, even after an exception, the weights are the same tensors as before.

    Args:
        model: A model in eval mode.
        scheme: What is quantized, and how.
        calibration: The ranges of the layers.
        layers: Names of the layers that are quantized; None means all that are calibrated.
        excluded: Tokens of the calibration images that static ranges leave out, (n, N) bool.
        kept: Keep the tokens in `tokens` in full precision, instead of only leaving them out of the range.
    """

    def __init__(
        self,
        model: nn.Module,
        scheme: Scheme,
        calibration: Calibration,
        *,
        layers: Sequence[str] | None = None,
        excluded: Tensor | None = None,
        kept: bool = False,
    ) -> None:
        self.scheme, self.kept = scheme, kept
        self.all_layers = linear_layers(model)
        self.layers = {name: self.all_layers[name] for name in (calibration if layers is None else layers)}
        self.ranges: dict[str, Range] = {}
        if scheme.activation_bits is not None and scheme.granularity == "static":
            self.ranges = {name: calibration[name].static(scheme, excluded) for name in self.layers}
        self.tokens: Tensor | None = None
        """Tokens of the current batch that are left out of the range of their image, (B, N) bool; set it before
        each batch. Layers with a different number of tokens have none."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        if self.scheme.weight_bits is not None:
            for layer in self.layers.values():
                weight = layer.weight.data
                self._stack.callback(setattr, layer.weight, "data", weight)
                layer.weight.data = simulate_weight(weight, self.scheme.weight_bits)
        if self.scheme.activation_bits is not None:
            self._stack.enter_context(called_separately(self.all_layers.values()))
            self._stack.enter_context(_LinearCalls(self.layers, self._quantized))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _quantized(self, name: str, x: Tensor) -> Tensor:
        """Return the input of a layer, (B, N, K), as the quantized layer reads it."""
        bits = self.scheme.activation_bits
        assert bits is not None
        tokens = self.tokens if self.tokens is not None and self.tokens.shape == x.shape[:2] else None
        result = simulate(x, self._range(name, x, tokens), bits)
        return result if tokens is None or not self.kept else torch.where(tokens[..., None], x, result)

    def _range(self, name: str, x: Tensor, tokens: Tensor | None) -> Range:
        if self.scheme.granularity == "static":
            return self.ranges[name]
        return token_ranges(x) if self.scheme.granularity == "token" else image_ranges(x, tokens)
