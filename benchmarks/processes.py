"""Compare the training throughput of two processes with that of one; every process has one thread.

    python -m benchmarks.processes [--rounds 3] [--steps 12] [--strategy ddp]

Each round runs `fit` of a ViT-Ti/16 at 224 px with 16 images per process and step, once with one process and once
with two.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

LOCAL_BATCH = 16


def speed(processes: int, steps: int, strategy: str) -> float:
    """`images_per_second` of a run."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"--trainer.devices={processes}", f"--trainer.strategy={strategy}"] if processes > 1 else []
        command = [
            "fit",
            "--run_dir",
            f"{folder}/run",
            "--model.backbone.name=vit_tiny_patch16_224",
            "--data.image.size=224",
            f"--data.batch_size={LOCAL_BATCH * processes}",
            "--trainer.max_epochs=1",
            f"--trainer.limit_train_batches={steps}",
            "--trainer.limit_val_batches=0",
            "--wandb.mode=disabled",
            "--diagnostics.every_n_steps=0",
            "--trainer.accelerator=cpu",
            *options,
        ]
        subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "sinkablate", *command],
            check=True,
            capture_output=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return float(json.loads((Path(folder) / "run" / "summary.json").read_text())["images_per_second"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--strategy", default="ddp")
    args = parser.parse_args()
    pairs = [(speed(1, args.steps, args.strategy), speed(2, args.steps, args.strategy)) for _ in range(args.rounds)]
    one, two = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(two / one for one, two in pairs)
    print(
        f"one process {one:.1f}, two ({args.strategy}) {two:.1f} images/s: {ratio:.2f} times, {ratio / 2:.3f} x 2 "
        f"(target: >= 0.85 x 2; median of {args.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
