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
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Training:
    """How both sides train."""

    model: str = "vit_mini"
    size: int = 28
    batch: int = 64
    workers: int = 0
    epochs: int = 1
    steps: int | None = None
    """Steps per epoch; None takes all images."""
    bf16: bool = False
    compile: bool = False

    @property
    def skipped(self) -> int:
        """Number of steps that are not measured."""
        return 8 if self.compile else 0


def to_device(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor, from pinned memory without waiting."""
    return tensor.to(DEVICE, non_blocking=True)


def plain_loop(training: Training) -> float:
    """Images per second of a bare training loop with timm's model."""
    data = ImageData(image=ImageConfig(size=training.size), batch_size=training.batch, num_workers=training.workers)
    data.setup("fit")
    model = timm.create_model(training.model, img_size=training.size, in_chans=1, num_classes=10).to(DEVICE)
    if training.compile:
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05, fused=True)
    loader = data.train_dataloader()
    loader.pin_memory = DEVICE == "cuda"  # as `fit` does
    rate = Rate(training.skipped)
    for _ in range(training.epochs):
        for step, batch in enumerate(loader, 1):
            optimizer.zero_grad()
            with torch.autocast(DEVICE, torch.bfloat16, enabled=training.bf16):
                loss = F.cross_entropy(model(to_device(batch.image)), to_device(batch.target))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.count(len(batch.image))
            if step == training.steps:
                break
    rate.stop()
    return rate.images / rate.seconds


def fit(training: Training) -> float:
    """Images per second of `fit` with its defaults, except that W&B is disabled."""
    options = {
        "--wandb.mode": "disabled",
        "--trainer.devices": 1,
        "--trainer.max_epochs": training.epochs,
        "--trainer.limit_train_batches": 1.0 if training.steps is None else training.steps,
        "--trainer.precision": "bf16-mixed" if training.bf16 else "32-true",
        "--trainer.callbacks": f"[{{class_path: benchmarks.rate.Rate, init_args: {{skip: {training.skipped}}}}}]",
        "--model.backbone.name": training.model,
        "--model.compile": str(training.compile).lower(),
        "--data.image.size": training.size,
        "--data.batch_size": training.batch,
        "--data.num_workers": training.workers,
    }
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        command = ["fit", "--run_dir", str(Path(folder) / "run")]
        if main([*command, *(f"{key}={value}" for key, value in options.items())]):
            raise SystemExit(1)
    return Rate.images_per_second


def compare(training: Training, rounds: int, discarded: int) -> dict[str, list[float]]:
    """Return images per second of both sides, round by round, without the first rounds that are discarded."""
    speeds: dict[str, list[float]] = {"plain loop": [], "fit": []}
    for turn in range(-discarded, rounds):
        for name, side in {"plain loop": plain_loop, "fit": fit}.items():
            speed = side(training)
            if turn >= 0:
                speeds[name].append(speed)
    return speeds


def command() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=Training.epochs)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=Training.model)
    parser.add_argument("--size", type=int, default=Training.size)
    parser.add_argument("--batch", type=int, default=Training.batch)
    parser.add_argument("--workers", type=int, default=Training.workers)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = vars(parser.parse_args())
    rounds, training = args.pop("rounds"), Training(**args)
    speeds = compare(training, rounds, discarded=int(DEVICE == "cuda"))  # a GPU's first round compiles and allocates
    ratio = ratios(speeds, "plain loop")["fit"]
    medians = ", ".join(f"{name} {statistics.median(side):.0f} images/s" for name, side in speeds.items())
    print(
        f"\n{training.model}, {training.size} px, batch {training.batch}, {DEVICE}{', bf16' * training.bf16}"
        f"{', compiled' * training.compile}: {medians}: {ratio:.3f} times (target: >= 0.95; median of {rounds} rounds, "
        f"{torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    command()
