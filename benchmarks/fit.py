"""Compare `fit`, with diagnostics every 50 steps on 64 images, with a plain PyTorch loop on the same model and batches.

    python -m benchmarks.fit [--epochs 1] [--rounds 5]
    python -m benchmarks.fit --model vit_small_patch16_224 --size 224 --batch 256 --workers 14 --bf16       (a GPU)

Each round runs one epoch of both sides in turn, on the GPU if there is one. The time is that of the training loop
without validation, which `images_per_second` in summary.json also reports.
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
from benchmarks.interleave import DEVICE, ratios, settle
from sinkablate.__main__ import main
from sinkablate.config import ImageConfig
from sinkablate.data.datamodule import ImageData


def plain_loop(args: argparse.Namespace) -> float:
    """Images per second of a bare training loop."""
    data = ImageData(image=ImageConfig(size=args.size), batch_size=args.batch, num_workers=args.workers)
    data.setup("fit")
    model = timm.create_model(args.model, img_size=args.size, in_chans=1, num_classes=10).to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    images, start = 0, time.perf_counter()
    for _ in range(args.epochs):
        for batch in data.train_dataloader():
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
                loss = F.cross_entropy(model(batch.image.to(DEVICE)), batch.target.to(DEVICE))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            images += len(batch.image)
    settle()
    return images / (time.perf_counter() - start)


def fit(args: argparse.Namespace) -> float:
    """Images per second of `fit` with its defaults, except that W&B is disabled."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run_dir = Path(folder) / "run"
        command = [
            "fit",
            "--run_dir",
            str(run_dir),
            "--wandb.mode",
            "disabled",
            "--trainer.devices",
            "1",
            "--trainer.max_epochs",
            str(args.epochs),
            "--trainer.precision",
            "bf16-mixed" if args.bf16 else "32-true",
            "--model.backbone.name",
            args.model,
            "--data.image.size",
            str(args.size),
            "--data.batch_size",
            str(args.batch),
            "--data.num_workers",
            str(args.workers),
        ]
        if main(command):
            raise SystemExit(1)
        return float(json.loads((run_dir / "summary.json").read_text())["images_per_second"])


def compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="vit_mini")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    speeds: dict[str, list[float]] = {"plain loop": [], "fit": []}
    for turn in range(-1 if DEVICE == "cuda" else 0, args.rounds):  # a GPU's first round compiles and allocates
        for name, side in {"plain loop": plain_loop, "fit": fit}.items():
            speed = side(args)
            if turn >= 0:
                speeds[name].append(speed)
    ratio = ratios(speeds, "plain loop")["fit"]
    medians = ", ".join(f"{name} {statistics.median(side):.0f} images/s" for name, side in speeds.items())
    print(
        f"\n{args.model}, {args.size} px, batch {args.batch}, {DEVICE}{', bf16' * args.bf16}: {medians}: {ratio:.3f} "
        f"times (target: >= 0.95; median of {args.rounds} rounds, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    compare()
