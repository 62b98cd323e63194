"""Time the first step of a resumed run, and count how much of the shards it reads again, with both readers.

    python -m benchmarks.resume [--shards 16]

A ViT-Ti/16 at 224 px trains for an epoch of 32 images per shard and writes a checkpoint after three quarters of it.
The resumed run is timed from the start of the command, without imports, to the end of its first step.
"""

import argparse
import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sinkablate.__main__ import main as command
from sinkablate.callbacks.throughput import Throughput
from sinkablate.data import stream
from sinkablate.data.shards import write_shards

BATCH, SAMPLES = 8, 32
first_step: list[float] = []
tars_opened: list[str] = []
bytes_read: list[int] = []


def note_first_step(done: Callable[..., None]) -> Callable[..., None]:
    """Wrap a hook so that it records the time of its first call in `first_step`."""

    def noted(*args: Any) -> None:
        done(*args)
        first_step.append(time.perf_counter())

    return noted


def note_tars(read: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Wrap webdataset's reader so that it records the shards it opens in `tars_opened`."""

    def noted(sources: list[dict[str, str]]) -> Iterator[Any]:
        tars_opened.extend(Path(source["url"]).name for source in sources)
        return read(sources)

    return noted


def note_bytes(read: Callable[..., bytes]) -> Callable[..., bytes]:
    """Wrap `os.pread` so that it records the number of bytes of each call in `bytes_read`."""

    def noted(*args: int) -> bytes:
        data = read(*args)
        bytes_read.append(len(data))
        return data

    return noted


def write_images(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    for split, images in (("train", count), ("val", SAMPLES)):
        for number in range(images):
            path = root / split / str(number % 4) / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (224, 224), dtype=np.uint8)).save(path)


def fit(run_dir: Path, shards: Path, count: int, reader: str, *args: str) -> None:
    stream = ["--data.source.shuffle_shards=1"] if reader == "stream" else []
    words = [
        "fit",
        "--run_dir",
        str(run_dir),
        "--model.backbone.name=vit_tiny_patch16_224",
        "--data.image.size=224",
        "--data.source.format=shards",
        f"--data.source.reader={reader}",
        "--data.source.num_classes=4",
        *stream,
        f"--data.source.train={shards}/train-{{0000..{count - 1:04d}}}.tar",
        f"--data.source.val={shards}/val-0000.tar",
        f"--data.batch_size={BATCH}",
        "--trainer.max_epochs=1",
        "--trainer.limit_val_batches=0",
        "--wandb.mode=disabled",
        "--diagnostics.images=8",
        "--diagnostics.every_n_steps=1000",
        "--trainer.accelerator=cpu",
        *args,
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        if command(words):
            raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=16)
    count = parser.parse_args().shards
    Throughput.on_train_batch_end = note_first_step(Throughput.on_train_batch_end)  # type: ignore[method-assign]
    stream.tarfile_samples = note_tars(stream.tarfile_samples)
    os.pread = note_bytes(os.pread)
    stop = count * SAMPLES // BATCH * 3 // 4
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "images", count * SAMPLES)
        write_shards(str(root / "images"), str(root / "shards"), samples_per_shard=SAMPLES)
        for reader in ("indexed", "stream"):
            results = []
            ckpt_path = root / reader / "uninterrupted" / "checkpoints" / f"s{stop}.ckpt"
            checkpoint_options = (
                f"--checkpoint.every_n_train_steps={stop}",
                "--checkpoint.save_top_k=-1",
                "--checkpoint.filename=s{step}",
                "--checkpoint.auto_insert_metric_name=false",
            )
            for name, options in (("uninterrupted", checkpoint_options), ("resumed", ("--ckpt_path", str(ckpt_path)))):
                for measurements in (first_step, tars_opened, bytes_read):
                    measurements.clear()
                start = time.perf_counter()
                fit(root / reader / name, root / "shards", count, reader, *options)
                train = [tar for tar in tars_opened if tar.startswith("train")]
                results.append((first_step[0] - start, len(train), sum(bytes_read)))
            (_, tars, size), (seconds, tars_again, size_again) = results
            read = f"{size_again / size:.0%} of the bytes" if reader == "indexed" else f"{tars_again} of {tars} shards"
            print(
                f"{reader}: first step {seconds:.1f} s after the start (target: <= 20); for the last quarter of the "
                f"epoch it reads {read} of what the uninterrupted run reads, including its checks"
            )


if __name__ == "__main__":
    main()
