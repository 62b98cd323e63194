"""Compare `fit`, with diagnostics every 50 steps on 64 images, with a plain PyTorch loop on the same model and batches.

    python -m benchmarks.fit [--epochs 1] [--rounds 5]
    python -m benchmarks.fit --model vit_small_patch16_224 --size 224 --batch 256 --workers 14 --bf16       (a GPU)
    python -m benchmarks.fit ... --compile        timm's model with `torch.compile` against `fit --model.compile true`

Each round runs one epoch of both sides in turn, on the GPU if there is one. The time is that of the training loop
without validation, as for `images_per_second` in summary.json. With --compile, it begins after the first steps.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

import sinkablate.vit.backbone  # noqa: F401  (registers vit_mini with timm)
from benchmarks.interleave import DEVICE, ratios
from benchmarks.rate import Rate
from sinkablate.__main__ import main
from sinkablate.config import ImageConfig
from sinkablate.data.datamodule import ImageData


def to_device(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, from pinned memory without waiting."""
    return tensor.to(DEVICE, non_blocking=True)


def plain_loop(args: argparse.Namespace) -> float:
    """Images per second of a bare training loop."""
    data = ImageData(image=ImageConfig(size=args.size), batch_size=args.batch, num_workers=args.workers)
    data.setup("fit")
    model = timm.create_model(args.model, img_size=args.size, in_chans=1, num_classes=10).to(DEVICE)
    if args.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    loader = data.train_dataloader()
    loader.pin_memory = DEVICE == "cuda"  # as `fit` does
    rate = Rate(skipped(args))
    for _ in range(args.epochs):
        for batch in loader:
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=args.bf16):
                loss = F.cross_entropy(model(to_device(batch.image)), to_device(batch.target))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.count(len(batch.image))
    rate.stop()
    return rate.images / rate.seconds


def skipped(args: argparse.Namespace) -> int:
    """Number of steps that are not measured."""
    return 8 if args.compile else 0


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
            "--model.compile",
            str(args.compile).lower(),
            "--trainer.callbacks",
            f"[{{class_path: benchmarks.rate.Rate, init_args: {{skip: {skipped(args)}}}}}]",
        ]
        if main(command):
            raise SystemExit(1)
        return Rate.images_per_second


def compare() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="vit_mini")
    parser.add_argument("--size", type=int, default=28)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
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
        f"\n{args.model}, {args.size} px, batch {args.batch}, {DEVICE}{', bf16' * args.bf16}"
        f"{', compiled' * args.compile}: {medians}: {ratio:.3f} "
        f"times (target: >= 0.95; median of {args.rounds} rounds, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    compare()
