"""Simulated integer quantization of a linear layer: a scheme is a value, everything else is arithmetic on tensors.

Weights W are symmetric with one scale per output channel; activations x are affine, with a range that includes zero:

    q_w = round(W / s_w) in [-(2^(b-1) - 1), 2^(b-1) - 1],      s_w = max |W| of the channel / (2^(b-1) - 1)
    q_x = round(x / s_x) + z in [0, 2^b - 1],                   s_x = (high - low) / (2^b - 1),  z = round(-low / s_x)

The simulated layer multiplies s_w q_w and s_x (q_x - z) in floating point. This equals an integer product with exact
accumulation, s_x s_w sum_k q_w (q_x - z), up to floating-point rounding.

Axis letters: B images, N tokens, K input channels, C output channels.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Granularity = Literal["static", "dynamic", "token"]
"""What shares one range of activations: a tensor with a range from calibration images, the tensor of one image, or one
token."""
FULL_RANGE = 100.0
"""The percentile of a range from the smallest to the largest value."""


@dataclass(frozen=True)
class Scheme:
    """What is quantized, to how many bits, and how activations get their ranges."""

    weight_bits: int | None
    """None leaves the weights in full precision."""
    activation_bits: int | None
    """None leaves the activations in full precision."""
    granularity: Granularity = "static"
    percentile: float = FULL_RANGE
    """For a static range, the share of values in percent below its upper end, and above its lower end."""

    @property
    def name(self) -> str:
        """Name in tables, such as `w8a8_token`, `w4a4_static_p99.99`, `w8` or `a8_dynamic`."""
        parts = [
            f"w{self.weight_bits}" if self.weight_bits else "",
            f"a{self.activation_bits}_{self.granularity}" if self.activation_bits else "",
            f"_p{self.percentile:g}" if self.activation_bits and self.percentile != FULL_RANGE else "",
        ]
        return "".join(parts)


class Range(NamedTuple):
    """The smallest and the largest value that are represented, as tensors that broadcast over the activations."""

    low: Tensor
    high: Tensor


def quantize_weight(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Return the integers q_w (C, K), in the dtype of the weight, and the scales s_w (C, 1).

    The scale of a channel of zeros is 1.
    """
    most = 2 ** (bits - 1) - 1
    size = weight.abs().amax(1, keepdim=True)
    scale = torch.where(size > 0, size / most, 1)
    return (weight / scale).round_().clamp_(-most, most), scale


def simulate_weight(weight: Tensor, bits: int) -> Tensor:
    """Return the weight that a quantized layer multiplies with, s_w q_w (C, K)."""
    integers, scale = quantize_weight(weight, bits)
    return integers.mul_(scale)


def scale_and_zero(limits: Range, bits: int) -> tuple[Tensor, Tensor]:
    """Return s_x and z of a range, which is extended to include zero; the scale of an empty range is 1."""
    low, high = limits.low.clamp_max(0), limits.high.clamp_min(0)
    scale = (high - low) / (2**bits - 1)
    scale = torch.where(scale == 0, 1, scale)
    return scale, (-low / scale).round_()


def quantize(x: Tensor, limits: Range, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the integers q_x, in the shape and dtype of x, with s_x and z; values beyond the range are clipped."""
    scale, zero = scale_and_zero(limits, bits)
    return (x / scale).round_().add_(zero).clamp_(0, 2**bits - 1), scale, zero


def simulate(x: Tensor, limits: Range, bits: int) -> Tensor:
    """Return the activations that a quantized layer multiplies, s_x (q_x - z), in the shape of x."""
    integers, scale, zero = quantize(x, limits, bits)
    return integers.sub_(zero).mul_(scale)


def token_ranges(x: Tensor) -> Range:
    """Return the range of every token, (B, N, K) -> (B, N, 1) each."""
    return Range(x.amin(-1, keepdim=True), x.amax(-1, keepdim=True))


def image_ranges(x: Tensor, excluded: Tensor | None = None) -> Range:
    """Return the range of every image, which includes zero, (B, N, K) -> (B, 1, 1) each.

    Args:
        x: Activations.
        excluded: Tokens that the range leaves out, (B, N) bool.
    """
    if excluded is not None:
        x = x.masked_fill(excluded[..., None], 0)  # zero is in every range
    flat = x.flatten(1)
    return Range(flat.amin(1).clamp_max_(0)[:, None, None], flat.amax(1).clamp_min_(0)[:, None, None])


def percentile_ranges(x: Tensor, percentile: float) -> Range:
    """Return a range of every image that leaves out the tails of its values, (B, N, K) -> (B,) each.

    The upper end is the smallest value such that at least `percentile` percent of the values are not above it; the
    lower end is the same of -x.
    """
    flat = x.flatten(1)
    rank = max(1, -(-round(flat.shape[1] * percentile * 1e6) // 10**8))  # without rounding errors of 99.9 / 100
    beyond = flat.shape[1] - rank + 1
    return Range(-(-flat).topk(beyond).values[:, -1], flat.topk(beyond).values[:, -1])
