"""Time several callables in turn, so that changes in the speed of the machine affect all of them equally."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Summarize values; a single one is its own quartiles."""
        if len(values) == 1:
            return cls(*values, *values, *values)
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    @classmethod
    def of_ratios(cls, times: Sequence[float], base: Sequence[float]) -> Self:
        """Summarize the ratios of two sides, round by round."""
        return cls.of([a / b for a, b in zip(times, base, strict=True)])


def settle() -> None:
    """Wait for pending work on the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory(run: Callable[[], object]) -> float:
    """GiB of GPU memory that a call needs at most, in addition to what is allocated before; NaN without a GPU."""
    if not torch.cuda.is_available():
        return math.nan
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    settle()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


def interleave(sides: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Seconds of every round for each side; a round runs all sides one after the other."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(-warmup, rounds):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            settle()
            if turn >= 0:
                times[name].append(time.perf_counter() - start)
    return times


def ratios(times: dict[str, list[float]], base: str) -> dict[str, float]:
    """Median over rounds of the time of each side divided by that of the base in the same round."""
    return {name: Spread.of_ratios(side, times[base]).median for name, side in times.items()}


def report(title: str, times: dict[str, list[float]], base: str, limits: dict[str, float] | None = None) -> None:
    """Print medians, ratios to the base, and the target of each side that has one."""
    limits = limits or {}
    print(f"\n{title} (ratios to {base}, median of {len(times[base])} interleaved rounds)")
    for name, ratio in ratios(times, base).items():
        limit = f"  target: <= {limits[name]:.2f}" if name in limits else ""
        print(f"  {name:<24} {statistics.median(times[name]) * 1e3:9.1f} ms  {ratio:6.3f}{limit}")
