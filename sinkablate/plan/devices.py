"""The model of a device with which `plan` turns operations into seconds, and its numbers for common devices.

An operation takes as long as the slowest of three things: its arithmetic, its memory traffic, and its launch. The
operations of a program run one after the other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from sinkablate.errors import UserError
from sinkablate.files.suggestions import did_you_mean_or_list
from sinkablate.plan.operations import Work

LAUNCH = 18e-6
"""Seconds to launch an operation on a GPU from Python: 650 operations of a measured block took 11 to 13 ms on an H200
(torch 2.11), whatever the batch."""
CPU_EFFICIENCY = 0.6
"""Share of the measured rates of a CPU that operations reach on average: most are smaller than the measured ones."""
EFFICIENCY = 0.45
"""Share of the peak rates of a GPU that operations reach on average, chosen so that predictions for an H200 agree with
measured training steps and forward passes (benchmarks/README.md)."""


@dataclass(frozen=True)
class Seconds:
    """How long a program takes, and the sums of the three terms that bound each of its operations."""

    arithmetic: float
    memory: float
    launches: float
    total: float
    """Sum over operations of the largest of the three; at least each of the sums, at most all of them together."""


@dataclass(frozen=True)
class Device:
    """The rates of a device."""

    name: str
    half_flops: float
    """FLOP/s of matrix products in bf16 or fp16, without sparsity."""
    single_flops: float
    """FLOP/s of matrix products in fp32, without TF32."""
    bandwidth: float
    """Bytes/s of its memory."""
    launch: float = LAUNCH
    """Seconds to launch one operation."""
    efficiency: float = EFFICIENCY
    """Share of these rates that operations reach."""

    def seconds(self, work: Work) -> Seconds:
        """Return how long the operations of a program take."""
        arithmetic = memory = total = 0.0
        for kernel, count in work.kernels.items():
            flops = kernel.flops / (self.efficiency * (self.half_flops if kernel.half else self.single_flops))
            traffic = kernel.bytes / (self.efficiency * self.bandwidth)
            arithmetic += count * flops
            memory += count * traffic
            total += count * max(flops, traffic, self.launch)
        return Seconds(arithmetic, memory, work.launches * self.launch, total)


DEVICES = {
    device.name: device
    for device in (
        Device("a100", 312e12, 19.5e12, 2.039e12),
        Device("h100", 989.4e12, 66.9e12, 3.35e12),
        Device("h200", 989.4e12, 66.9e12, 4.8e12),
        Device("l40s", 362.05e12, 91.6e12, 864e9),
    )
}
"""GPUs by name, with the peak rates of NVIDIA's data sheets (A100 SXM 80 GB, H100 SXM, H200 SXM, L40S)."""
CPU = "cpu"


def choose_device(name: str | None, efficiency: float | None, accelerator: str, threads: int) -> Device | None:
    """Return the device for which the time of a run is predicted; None if its rates are unknown.

    Args:
        name: A name in `DEVICES`; `cpu` for the CPU of this machine, whose rates are measured within a second; None for
            the device of this machine on which a run would train.
        efficiency: Replaces the device's own, if given.
        accelerator: Lightning's name for the kind of device of the run.
        threads: Number of threads of the run on a CPU.

    Raises:
        UserError: There is no such device, or the efficiency is not between 0 and 1.
    """
    if efficiency is not None and not 0 < efficiency <= 1:
        raise UserError(f"efficiency={efficiency}: must be greater than 0 and at most 1")
    name = _own_device(accelerator) if name is None else name.lower()
    if name is None:
        return None
    if name != CPU and name not in DEVICES:
        raise UserError(f"device={name}: no such device{did_you_mean_or_list(name, [*DEVICES, CPU])}")
    device = measured_cpu(threads) if name == CPU else DEVICES[name]
    return device if efficiency is None else replace(device, efficiency=efficiency)


def _own_device(accelerator: str) -> str | None:
    """Return the name of the device of this machine on which a run would train; None if its rates are unknown."""
    if accelerator == CPU or (accelerator == "auto" and not torch.cuda.is_available()):
        return CPU
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((name for name in DEVICES if name in gpu.lower().replace("-", " ").split()), None)


def measured_cpu(threads: int) -> Device:
    """Measure the rates of the CPU of this machine: matrix products, additions, and tiny operations.

    Args:
        threads: Number of threads that compute.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _measured_cpu()
    finally:
        torch.set_num_threads(before)


def _measured_cpu() -> Device:
    square, small = torch.ones(768, 768), torch.ones(192, 192, dtype=torch.bfloat16)
    long, tiny = torch.ones(1 << 22), torch.ones(1)
    out = torch.empty_like(long)
    return Device(
        CPU,
        half_flops=2 * 192**3 / _fastest(lambda: small @ small),
        single_flops=2 * 768**3 / _fastest(lambda: square @ square),
        bandwidth=2 * out.nbytes / _fastest(lambda: torch.add(long, 1, out=out)),
        launch=_fastest(lambda: [tiny + 1 for _ in range(100)]) / 100,
        efficiency=CPU_EFFICIENCY,
    )


def _fastest(run: Callable[[], object], seconds: float = 0.1) -> float:
    """Return the shortest time of a function in repetitions that take this long together."""
    end, shortest = time.perf_counter() + seconds, float("inf")
    while shortest == float("inf") or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest
