"""Measure how much a checkpoint every 100 steps slows down the training of a ViT-B/16.

    python -m benchmarks.checkpoint [--batch 4] [--rounds 3]

On a CPU, training waits while the state is copied, and continues while a thread writes the file; on a GPU, it also
continues during the copy. Two costs are measured: the time until saving returns, and how much longer the steps take
until the file is written. One checkpoint is written before the first measurement, because it allocates pinned memory.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.interleave import DEVICE, settle
from sinkablate.config import BackboneConfig, OptimConfig
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.tasks.optim import make_optimizer
from sinkablate.vit.backbone import build_backbone

EVERY = 100
TARGET = {"cpu": 0.02, "cuda": 0.01}


@dataclass(frozen=True)
class Checkpoints:
    """Times of training steps and checkpoints, in seconds."""

    steps: list[float]
    """Steps while no checkpoint is written."""
    slowed_steps: list[float]
    """Steps while a checkpoint is written."""
    copies: list[float]
    """Time until saving returns, per checkpoint."""
    writes: list[float]
    """Time until the file is on disk, per checkpoint."""
    size: int
    """Bytes of the file."""

    @property
    def steps_per_write(self) -> float:
        """Number of steps while a checkpoint is written."""
        return len(self.slowed_steps) / len(self.writes)

    @property
    def slowdown(self) -> float:
        """Time of a step while a checkpoint is written, relative to the usual one; 1 if it was written before any."""
        return statistics.median(self.slowed_steps or self.steps) / statistics.median(self.steps)

    def cost(self, copy: float) -> float:
        """Return the time that a checkpoint every `EVERY` steps costs, as a share, if saving returns after `copy`."""
        usual = statistics.median(self.steps)
        return (copy + self.steps_per_write * usual * max(0.0, self.slowdown - 1)) / (EVERY * usual)


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer, size: int, batch: int) -> Callable[[], float]:
    """Return a function that trains for one step on random images and returns its seconds."""
    images = torch.randn(batch, 3, size, size, device=DEVICE)
    targets = torch.randint(10, (batch,), device=DEVICE)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        settle()
        return time.perf_counter() - start

    return step


def measure(name: str, size: int, batch: int, rounds: int) -> Checkpoints:
    """Train a ViT on images of `size` pixels, and save a checkpoint in every round."""
    model = build_backbone(BackboneConfig(name=name), num_classes=1000, in_chans=3, img_size=size, seed=0).to(DEVICE)
    optimizer = make_optimizer(model, OptimConfig())
    step = training_step(model, optimizer, size, batch)
    step()
    steps, slowed_steps, copies, writes = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        io = AtomicCheckpointIO()
        io.save_checkpoint({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "0")
        io.wait()
        for turn in range(rounds):
            steps += [step() for _ in range(3)]
            path, start = Path(folder) / f"{turn}.ckpt", time.perf_counter()
            io.save_checkpoint({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, path)
            copies.append(time.perf_counter() - start)
            while io.writer.busy:
                slowed_steps.append(step())
            io.wait()
            writes.append(time.perf_counter() - start)
            written = path.stat().st_size
            path.unlink()
    return Checkpoints(steps, slowed_steps, copies, writes, written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    measured = measure("vit_base_patch16_224", 224, args.batch, args.rounds)
    copy = statistics.median(measured.copies)
    print(
        f"ViT-B/16, batch {args.batch}, {DEVICE}, {torch.get_num_threads()} threads: step "
        f"{statistics.median(measured.steps):.3f} s, checkpoint of {measured.size / 2**30:.2f} GiB copied in "
        f"{copy:.2f} s and on disk after {statistics.median(measured.writes):.1f} s; {measured.steps_per_write:.1f} "
        f"steps meanwhile, each {measured.slowdown:.2f} times as long as usual"
    )
    print(f"a checkpoint every {EVERY} steps costs {measured.cost(copy):.2%} (target: <= {TARGET[DEVICE]:.0%})")


if __name__ == "__main__":
    main()
