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
from pathlib import Path

import torch

from benchmarks.interleave import DEVICE, settle
from sinkablate.config import BackboneConfig, OptimConfig
from sinkablate.run.checkpoint_io import AtomicCheckpointIO
from sinkablate.tasks.optim import make_optimizer
from sinkablate.vit.backbone import build_backbone

EVERY = 100
TARGET = {"cpu": 0.02, "cuda": 0.01}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    config = BackboneConfig(name="vit_base_patch16_224")
    model = build_backbone(config, num_classes=1000, in_chans=3, img_size=224, seed=0).to(DEVICE)
    optimizer = make_optimizer(model, OptimConfig())
    images = torch.randn(args.batch, 3, 224, 224, device=DEVICE)
    targets = torch.randint(1000, (args.batch,), device=DEVICE)

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=DEVICE == "cuda"):
            loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        optimizer.step()
        settle()
        return time.perf_counter() - start

    step()
    plain, slowed_steps, copies, writes = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        io = AtomicCheckpointIO()
        io.save_checkpoint({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / "0")
        io.wait()
        for turn in range(args.rounds):
            plain += [step() for _ in range(3)]
            start = time.perf_counter()
            io.save_checkpoint(
                {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, Path(folder) / f"{turn}.ckpt"
            )
            copies.append(time.perf_counter() - start)
            while io.writer.busy:
                slowed_steps.append(step())
            io.wait()
            writes.append(time.perf_counter() - start)
            size = (Path(folder) / f"{turn}.ckpt").stat().st_size
            (Path(folder) / f"{turn}.ckpt").unlink()
    usual, slowed, copy = (statistics.median(times) for times in (plain, slowed_steps, copies))
    steps_per_write = len(slowed_steps) / args.rounds
    cost = (copy + steps_per_write * max(0.0, slowed - usual)) / (EVERY * usual)
    print(
        f"ViT-B/16, batch {args.batch}, {DEVICE}, {torch.get_num_threads()} threads: step {usual:.3f} s, checkpoint "
        f"of {size / 2**30:.2f} GiB copied in {copy:.2f} s and on disk after {statistics.median(writes):.1f} s; "
        f"{steps_per_write:.1f} steps meanwhile, each {slowed / usual:.2f} times as long as usual"
    )
    print(f"a checkpoint every {EVERY} steps costs {cost:.2%} (target: <= {TARGET[DEVICE]:.0%})")


if __name__ == "__main__":
    main()
