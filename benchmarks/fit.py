"""`fit` with diagnostics every 50 steps on 64 images against a plain PyTorch loop: same timm model, batches and data.

    python -m benchmarks.fit [--epochs 1] [--rounds 5]

Each round runs one epoch of both, one after the other; the time is that of the training loop, validation left out, as
`images_per_second` in summary.json counts it.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

import sinkablate.vit.backbone  # noqa: F401  (registers vit_mini with timm)
from benchmarks.interleave import ratios
from sinkablate.__main__ import main
from sinkablate.data.images import ImageData


def plain_loop(epochs: int) -> float:
    """Images per second of a bare training loop."""
    data = ImageData()
    data.setup("fit")
    model = timm.create_model("vit_mini")
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    images, start = 0, time.perf_counter()
    for _ in range(epochs):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            F.cross_entropy(model(batch.image), batch.target).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            images += len(batch.image)
    return images / (time.perf_counter() - start)


def fit(epochs: int) -> float:
    """Images per second of `fit`, everything on as by default but W&B's own process."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run_dir = Path(folder) / "run"
        command = ["fit", "--run_dir", str(run_dir), "--trainer.max_epochs", str(epochs), "--wandb.mode", "disabled"]
        if main(command):
            raise SystemExit(1)
        return float(json.loads((run_dir / "summary.json").read_text())["images_per_second"])


def compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    speeds: dict[str, list[float]] = {"plain loop": [], "fit": []}
    for _ in range(args.rounds):
        speeds["plain loop"].append(plain_loop(args.epochs))
        speeds["fit"].append(fit(args.epochs))
    ratio = ratios(speeds, "plain loop")["fit"]
    medians = ", ".join(f"{name} {statistics.median(side):.0f} images/s" for name, side in speeds.items())
    print(f"\n{medians}: {ratio:.3f} times (asked: >= 0.95; median of {args.rounds} rounds, "
          f"{torch.get_num_threads()} threads)")


if __name__ == "__main__":
    compare()
