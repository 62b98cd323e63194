"""`sinkablate shards`: writes WebDataset shards. Standard library, numpy and PIL only, so that the verb is quick."""

import gzip
import io
import json
import math
import sys
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sinkablate.data.files import class_folders, labeled_files, said
from sinkablate.data.layout import LABEL_SUFFIX, MANIFEST
from sinkablate.errors import UserError
from sinkablate.files.writing import replacing

_IDX_SPLITS = {"train": "train", "val": "t10k"}
_EVERY_SECONDS = 3


class _Split(NamedTuple):
    """What a source offers: labels (n,), and the i-th image as (bytes, suffix)."""

    labels: NDArray[np.int64]
    read: Callable[[int], tuple[bytes, str]]
    classes: list[str]
    skipped: "Counter[str]"
    """Files that are not packed, by reason."""


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
        UserError: The source is not of a known layout, a class has too few images, a file cannot be read, or the target
            is not empty or cannot be written.
    """
    target = Path(dst)
    for key, value, least in (
        ("samples_per_shard", samples_per_shard, 1),
        ("train_per_class", train_per_class, 1),
        ("val_per_class", val_per_class, 1),
        ("seed", seed, 0),
    ):
        if value is not None and value < least:
            raise UserError(f"{key} must be at least {least}, got {value}")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{dst} exists and is not an empty directory: nothing is overwritten")
    splits = _open_splits(Path(src), split)
    orders = {
        name: _choose(found, train_per_class if name == "train" else val_per_class, seed, name)
        for name, found in splits.items()
    }
    for name, found in splits.items():
        if found.skipped:
            print(f"{name}: not packed: {said(found.skipped)}", file=sys.stderr)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, folder=True, concurrent=True) as partial:
            return _write_splits(partial, splits, orders, samples_per_shard, ".tar.gz" if compress else ".tar")
    except OSError as error:
        raise UserError(f"{dst} cannot be written ({error.strerror}); nothing is left of it") from None


def _write_splits(
    folder: Path, splits: dict[str, _Split], orders: dict[str, NDArray[np.int64]], samples_per_shard: int, suffix: str
) -> dict[str, int]:
    """Write the shards and the manifest; returns the samples per shard."""
    counts: dict[str, int] = {}
    advance = _progress(sum(map(len, orders.values())))
    for name, found in splits.items():
        order = orders[name]
        for number, first in enumerate(range(0, len(order), samples_per_shard)):
            shard = f"{name}-{number:04d}{suffix}"
            chunk = order[first : first + samples_per_shard]
            _write_shard(folder / shard, found, chunk, f"{name}-{{:07d}}", first, advance)
            counts[shard] = len(chunk)
    classes = next(iter(splits.values())).classes
    (folder / MANIFEST).write_text(json.dumps({"shards": counts, "classes": classes}, indent=1) + "\n")
    return counts


def _progress(total: int) -> Callable[[], None]:
    """Returns what to call after each image: every few seconds it prints how far the packing is."""
    begun = said_at = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, said_at
        done += 1
        now = time.monotonic()
        if now - said_at > _EVERY_SECONDS:
            said_at = now
            rate = done / (now - begun)
            print(
                f"packing: {done:,} of {total:,} images, {rate:.0f} images/s, {(total - done) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return advance


def _open_splits(src: Path, split: Literal["all", "train", "val"]) -> dict[str, _Split]:
    if not src.is_dir():
        raise UserError(f"{src}: no such directory")
    wanted = ("train", "val") if split == "all" else (split,)
    if any(src.glob("*-images-idx3-ubyte*")):
        return {name: _open_idx(src, _IDX_SPLITS[name]) for name in wanted}
    if not any(entry.is_dir() for entry in src.iterdir()):
        raise UserError(f"{src}: holds neither IDX files nor one folder of images per class")
    if not all((src / name).is_dir() for name in wanted):
        return {"train" if split == "all" else split: _open_folder(src)}
    classes = class_folders(src / "train", str(src / "train")) if (src / "train").is_dir() else None
    return {name: _open_folder(src / name, None if name == "train" else classes) for name in wanted}


def _open_folder(root: Path, classes: list[str] | None = None) -> _Split:
    """The images of a folder of class folders; `classes` are those of the training set, if this is another one."""
    found = labeled_files(root, str(root), classes)
    skipped = found.skipped
    pairs = sorted(zip(found.labels, map(Path, found.files), strict=True))
    kept = []
    for label, path in pairs:
        try:
            fault = None if path.stat().st_size else "empty file"
        except OSError:  # a link to nowhere, for one
            fault = "unreadable file"
        if fault:
            skipped[fault] += 1
        else:
            kept.append((label, path))
    others = skipped.total() - skipped["empty file"] - skipped["unreadable file"]
    if others > len(kept) * (1 if len(found.classes) == 1 else 2):
        raise UserError(
            f"{root}: holds {len(kept)} images among {others} other files ({said(skipped)}), which does "
            "not look like one folder of images per class"
        )
    if not kept:
        raise UserError(f"{root}: holds no image ({said(skipped) or 'its class folders are empty'})")

    def read(index: int) -> tuple[bytes, str]:
        path = kept[index][1]
        try:
            return path.read_bytes(), path.suffix.lower().lstrip(".")
        except OSError as error:
            raise UserError(f"{path}: the file cannot be read ({error.strerror})") from None

    return _Split(np.array([label for label, _ in kept]), read, found.classes, skipped)


def _open_idx(src: Path, prefix: str) -> _Split:
    images = _read_idx(src, f"{prefix}-images-idx3-ubyte", dimensions=3)
    labels = _read_idx(src, f"{prefix}-labels-idx1-ubyte", dimensions=1)
    if not len(images):
        raise UserError(f"{src}: {prefix} holds no image")
    if len(images) != len(labels):
        raise UserError(f"{src}: {prefix} has {len(images)} images and {len(labels)} labels")

    def png(index: int) -> tuple[bytes, str]:
        buffer = io.BytesIO()
        Image.fromarray(images[index]).save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "png"

    return _Split(labels.astype(np.int64), png, [str(label) for label in range(int(labels.max()) + 1)], Counter())


def _read_idx(src: Path, name: str, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file, plain or gzipped: bytes 0, 0, type (8: uint8), dimensions, then sizes and values."""
    path = next((path for path in (src / f"{name}.gz", src / name) if path.is_file()), None)
    if path is None:
        raise UserError(f"{src}: {name}(.gz) is missing")
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    start = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:start], ">u4").tolist() if len(data) >= start else []
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) - start != math.prod(shape):
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


def _write_shard(
    path: Path, split: _Split, order: NDArray[np.int64], key: str, first: int, advance: Callable[[], None]
) -> None:
    with _opened(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, index in enumerate(order, first):
            image, suffix = split.read(int(index))
            label = str(int(split.labels[index])).encode()
            for data, ending in ((image, suffix), (label, LABEL_SUFFIX)):
                # a fresh TarInfo has no time, owner or group: the same samples give the same bytes
                member = tarfile.TarInfo(f"{key.format(number)}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            advance()


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # no name and no time in the header, for the same reason
            with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield raw
