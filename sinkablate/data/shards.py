"""`sinkablate shards`: writes WebDataset shards. Standard library, numpy and PIL only, so that the verb is quick."""

import gzip
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.data.layout import IMAGE_SUFFIXES, LABEL_SUFFIX, MANIFEST
from sinkablate.errors import UserError

_IDX_SPLITS = {"train": "train", "val": "t10k"}


class _Split(NamedTuple):
    """What a source offers: labels (n,), and the i-th image as (bytes, suffix)."""

    labels: NDArray[np.int64]
    read: Callable[[int], tuple[bytes, str]]
    classes: list[str]


def write_shards(
    src: str,
    dst: str,
    *,
    split: Literal["all", "train", "val"] = "all",
    samples_per_shard: int = 1000,
    train_per_class: int | None = None,
    val_per_class: int | None = None,
    seed: int = 0,
    compress: bool = False,
) -> dict[str, int]:
    """Write WebDataset shards `<split>-0000.tar`, … and a manifest of the samples in each.

    Samples are shuffled, so that a shard holds a mixture of classes. The same call writes the same bytes.

    Args:
        src: A directory with IDX files (train-*, t10k-*), with one folder of images per class, or with folders train
            and val of such folders.
        dst: Directory to write; it must not exist or be empty.
        split: Which split to write; a directory with one folder per class is `train` unless this says `val`.
        samples_per_shard: Samples in each shard but the last.
        train_per_class: Take so many random training images of each class; null takes all.
        val_per_class: Take so many random validation images of each class; null takes all.
        seed: Seed of the choice and the order.
        compress: Write `.tar.gz`: for small sets that are kept in memory, not for training from disk.

    Returns:
        Samples per shard by file name, as in the manifest.

    Raises:
        UserError: The source is not of a known layout, a class has too few images, or the target is not empty.
    """
    target = Path(dst)
    if samples_per_shard < 1:
        raise UserError(f"samples_per_shard must be at least 1, got {samples_per_shard}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{dst} exists and is not an empty directory: nothing is overwritten")
    splits = _open_splits(Path(src), split)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UserError(f"{dst} cannot be written ({error.strerror})") from None
    try:
        counts: dict[str, int] = {}
        for name, found in splits.items():
            order = _choose(found, train_per_class if name == "train" else val_per_class, seed, name)
            suffix = ".tar.gz" if compress else ".tar"
            for number, first in enumerate(range(0, len(order), samples_per_shard)):
                shard = f"{name}-{number:04d}{suffix}"
                chunk = order[first : first + samples_per_shard]
                _write_shard(temporary / shard, found, chunk, f"{name}-{{:07d}}", first)
                counts[shard] = len(chunk)
        classes = next(iter(splits.values())).classes
        (temporary / MANIFEST).write_text(json.dumps({"shards": counts, "classes": classes}, indent=1) + "\n")
        temporary.chmod(0o755)  # mkdtemp's is private
        os.replace(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return counts


def _open_splits(src: Path, split: Literal["all", "train", "val"]) -> dict[str, _Split]:
    if not src.is_dir():
        raise UserError(f"{src}: no such directory")
    wanted = ("train", "val") if split == "all" else (split,)
    if any(src.glob("*-images-idx3-ubyte*")):
        return {name: _open_idx(src, _IDX_SPLITS[name]) for name in wanted}
    if all((src / name).is_dir() for name in wanted):
        splits = {name: _open_folder(src / name) for name in wanted}
        first, *others = splits.values()
        if any(other.classes != first.classes for other in others):
            raise UserError(f"{src}: train and val have different class folders")
        return splits
    return {"train" if split == "all" else split: _open_folder(src)}


def _open_folder(root: Path) -> _Split:
    classes = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (root / name).rglob("*") if p.suffix.lower().lstrip(".") in IMAGE_SUFFIXES)
        if not found:
            raise UserError(f"{root / name}: the class folder holds no image")
        files += found
        labels += [label] * len(found)
    if not files:
        raise UserError(f"{root}: holds neither IDX files nor one folder of images per class")
    return _Split(
        np.array(labels), lambda i: (files[i].read_bytes(), files[i].suffix.lower().lstrip(".")), classes
    )


def _open_idx(src: Path, prefix: str) -> _Split:
    images = _read_idx(src, f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(src, f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if len(images) != len(labels):
        raise UserError(f"{src}: {prefix} has {len(images)} images and {len(labels)} labels")

    def png(index: int) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        Image.fromarray(images[index]).save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"

    return _Split(labels.astype(np.int64), png, [str(label) for label in range(int(labels.max()) + 1)])


def _read_idx(src: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file, plain or gzipped: bytes 0, 0, type (8: uint8), dimensions, then sizes and values."""
    path = next((path for path in (src / f"{name}.gz", src / name) if path.is_file()), None)
    if path is None:
        raise UserError(f"{src}: {name}(.gz) is missing")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    shape = np.frombuffer(data[4 : 4 + 4 * dimensions], ">u4").astype(int)
    start = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - start != shape.prod():
        raise UserError(f"{path}: is not a whole IDX file of bytes in {dimensions} dimensions")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _choose(split: _Split, per_class: int | None, seed: int, name: str) -> NDArray[np.int64]:
    """Shuffled numbers of the samples to write, so many of each class."""
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(split.labels))
    if per_class is None:
        return order
    chosen = []
    for label, title in enumerate(split.classes):
        members = np.flatnonzero(split.labels[order] == label)[:per_class]
        if len(members) < per_class:
            raise UserError(f"{name}: class {title} has {len(members)} images, {per_class} are asked for")
        chosen.append(members)
    return order[np.sort(np.concatenate(chosen))]


def _write_shard(path: Path, split: _Split, order: NDArray[np.int64], key: str, first: int) -> None:
    with _opened(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, index in enumerate(order, first):
            image, suffix = split.read(int(index))
            label = str(int(split.labels[index])).encode()
            for data, ending in ((image, suffix), (label, LABEL_SUFFIX)):
                # a fresh TarInfo has no time, owner or group: the same samples give the same bytes
                member = tarfile.TarInfo(f"{key.format(number)}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # no name and no time in the header, for the same reason
            with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield raw
