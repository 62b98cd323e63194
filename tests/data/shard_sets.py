"""Writes small sets of real images in real tar files."""

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sinkablate.config import ImageConfig, SourceConfig
from sinkablate.data.locations import MANIFEST

COUNTS = (7, 5, 9, 4, 6, 8)
"""Number of samples per shard, deliberately unequal."""
GRAY = ImageConfig(size=8, mean=(0.5,), std=(0.5,))


def png(number: int, mode: str = "L", size: int = 8) -> bytes:
    """A PNG of noise that depends only on `number`."""
    shape = (size, size) if mode == "L" else (size, size, len(mode))
    pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def members(first: int, count: int, mode: str = "L") -> list[tuple[str, bytes]]:
    out = []
    for number in range(first, first + count):
        out += [(f"s{number:03d}.png", png(number, mode)), (f"s{number:03d}.cls", str(number % 4).encode())]
    return out


def write_set(root: Path, counts: Iterable[int] = COUNTS, mode: str = "L") -> SourceConfig:
    """Write training shards of the given sizes and their manifest; the same files serve as validation shards."""
    root.mkdir(parents=True, exist_ok=True)
    first, listed = 0, {}
    for shard, count in enumerate(counts):
        name = f"set-{shard:04d}.tar"
        write_tar(root / name, members(first, count, mode))
        listed[name] = count
        first += count
    text = "{" + ", ".join(f'"{name}": {count}' for name, count in listed.items()) + "}"
    (root / MANIFEST).write_text(f'{{"shards": {text}}}')
    last = len(listed) - 1
    location = f"{root}/set-{{0000..{last:04d}}}.tar"
    return SourceConfig(format="shards", train=location, val=location, num_classes=4)
