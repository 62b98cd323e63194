"""Compare FlexAttention with the explicit path: attention alone, compiled, forward and backward, and its memory.

    python -m benchmarks.kernels [--rounds 20]

The explicit path of a sink is a flash kernel; that of a score without softmax computes all weights, so its memory is
quadratic in the number of tokens. On a CPU, FlexAttention has no gradients, so forward passes of the uncompiled
functions run.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.interleave import DEVICE, interleave, peak_memory, report
from benchmarks.mechanisms import VARIANTS
from sinkablate.attention.core import AttentionCore
from sinkablate.config import AttentionConfig

NAMES = ("relu", "sigmoid", "polynomial", "pointwise softplus", "clipped_softmax", "sink learned")
"""The mechanisms of `benchmarks.mechanisms` that differ from softmax over the tokens; clipping has no form for flex."""


@dataclass(frozen=True)
class Shape:
    """Shape of the queries, keys and values."""

    tokens: int
    batch: int
    heads: int = 6
    width: int = 64


SHAPES = (Shape(197, 256), Shape(1370, 16))


def kernels(name: str, shape: Shape) -> dict[str, Callable[[], None]]:
    """Return functions that run each kernel of a mechanism, forward and, on a GPU, backward."""
    core = AttentionCore(AttentionConfig(kernel="explicit", **VARIANTS[name][1]), shape.heads, shape.width).to(DEVICE)
    on_gpu = DEVICE == "cuda"
    size, dtype = (shape.batch, shape.heads, shape.tokens, shape.width), torch.bfloat16 if on_gpu else torch.float32
    inputs = [torch.randn(size, device=DEVICE, dtype=dtype, requires_grad=on_gpu) for _ in range(3)]
    direction = torch.randn(size, device=DEVICE, dtype=dtype)
    sought = [*inputs, *core.parameters()]

    def runner(function: Callable[..., Tensor]) -> Callable[[], None]:
        compiled: Any = torch.compile(function, dynamic=False) if on_gpu else function

        def run() -> None:
            with torch.set_grad_enabled(on_gpu):
                out = compiled(*inputs)
            if on_gpu:
                torch.autograd.grad(out, sought, direction)

        return run

    functions = {"explicit": core.forward} | ({"flex": core.forward_flex} if core.has_flex_form else {})
    return {kernel: runner(function) for kernel, function in functions.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    for name in NAMES:
        for shape in SHAPES:
            runs = kernels(name, shape)
            times = interleave(runs, args.rounds, warmup=3)
            report(f"{name}, {shape.tokens} tokens, batch {shape.batch}, {DEVICE}", times, "explicit")
            for kernel, run in runs.items():
                print(f"  {kernel:<24} {peak_memory(run):9.2f} GiB")


if __name__ == "__main__":
    main()
