"""Extraction of features compared with the plain forward pass of the same model, and exact neighbors at a large scale.

    python -m benchmarks.evaluate [--model vit_small_patch16_224] [--images 128] [--batch 16] [--rounds 5]
    python -m benchmarks.evaluate --neighbors [--share 64]

The extraction decodes JPEG files, runs the model, checks the features and writes the cache; the plain pass runs the
model on the same batches, which are already decoded. A second extraction starts from decoded tensors, which separates
the cost of decoding. `--neighbors` classifies 50,000 images by 1.28 million with 1,024 features, or the given share of
these products, and extrapolates.
"""

import argparse
import io
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor

from benchmarks.interleave import DEVICE, interleave, report
from sinkablate.diagnostics.probe import measurement_mode
from sinkablate.evaluate.backbones import make_backbone
from sinkablate.evaluate.cache import FeatureCache
from sinkablate.evaluate.images import PreparedImages
from sinkablate.evaluate.knn import nearest_neighbors

QUERIES, TRAINING, WIDTH, NEIGHBORS, CHUNK = 50_000, 1_281_167, 1024, 200, 256


def jpegs(count: int) -> list[bytes]:
    """Encode random smooth images of 400 x 300 pixels, about as large as those of ImageNet at quality 90."""
    rng, files = np.random.default_rng(0), []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (38, 50, 3), np.uint8))
        file = io.BytesIO()
        small.resize((400, 300), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


def extraction(args: argparse.Namespace) -> None:
    """Print the time of both extractions relative to the plain forward pass."""
    model: Any = timm.create_model(args.model, num_classes=0).eval()
    data = resolve_data_config({}, model=model)
    transform: Any = create_transform(**data, is_training=False)
    files = jpegs(args.images)

    def decode(number: int) -> Tensor:
        tensor: Tensor = transform(Image.open(io.BytesIO(files[number])))
        return tensor

    tensors = torch.stack([decode(number) for number in range(args.images)])
    backbone = make_backbone("model", model, lambda _: model, torch.device(DEVICE))
    folder = Path(tempfile.mkdtemp())

    def plain() -> None:
        with measurement_mode(model):
            for batch in tensors.split(args.batch):
                model(batch.to(DEVICE))

    def extract(load: Any) -> None:
        images = PreparedImages(count=args.images, load=load, name=str, identity={"images": "benchmark"})
        FeatureCache(folder, quiet=True).get(args.reading, backbone, images, args.batch)
        shutil.rmtree(folder)

    sides = {
        "plain forward": plain,
        "from tensors": lambda: extract(lambda number: tensors[number]),
        "from JPEG files": lambda: extract(decode),
    }
    title = f"Extraction of {args.reading}, {args.model}, {args.images} images, batch {args.batch}, {DEVICE}"
    times = interleave(sides, args.rounds)
    report(f"{title}, {torch.get_num_threads()} threads", times, "plain forward", {"from tensors": 1 / 0.95})


def neighbors(share: int) -> None:
    """Print the time and peak memory of a part of the products, and the time of all of them."""
    generator = torch.Generator().manual_seed(0)
    side = int(share**0.5)
    queries = torch.randn(QUERIES // side, WIDTH, generator=generator).half().to(DEVICE)
    count = TRAINING // (share // side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, count, CHUNK):
            rows = min(CHUNK, count - first)
            features = torch.randn(rows, WIDTH, generator=generator).half()
            yield features.to(DEVICE), torch.zeros(rows, dtype=torch.long, device=DEVICE)

    begun = time.perf_counter()
    for _ in chunks():
        pass
    drawing = time.perf_counter() - begun
    begun = time.perf_counter()
    nearest_neighbors(queries, chunks(), NEIGHBORS)
    seconds = time.perf_counter() - begun - drawing
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    rate = 2 * len(queries) * count * WIDTH / seconds / 1e9
    print(
        f"{len(queries):,} x {count:,} x {WIDTH:,}, {NEIGHBORS} neighbors, {DEVICE}, "
        f"{torch.get_num_threads()} threads: "
        f"{seconds:.1f} s, {rate:.1f} GFLOP/s, {grown:.2f} GiB in addition"
    )
    print(f"all {QUERIES:,} x {TRAINING:,}: {seconds * share / 60:.0f} minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--reading", default="patches")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--neighbors", action="store_true")
    parser.add_argument("--share", type=int, default=64)
    args = parser.parse_args()
    neighbors(args.share) if args.neighbors else extraction(args)


if __name__ == "__main__":
    main()
