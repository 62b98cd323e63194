"""The command `shards`: writes WebDataset shards. Imports only NumPy and PIL, so that it starts fast."""

import gzip
import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray

from sinkablate.data.file_names import LABEL_SUFFIX
from sinkablate.data.image_files import format_counts
from sinkablate.data.locations import MANIFEST
from sinkablate.data.shard_sources import SourceSplit, open_splits
from sinkablate.errors import UserError, require_at_least
from sinkablate.files.writing import replacing

_PROGRESS_SECONDS = 3


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

    Samples are shuffled, so that each shard contains a mixture of classes. The same call writes the same bytes.

    Args:
        src: A directory with IDX files (train-*, t10k-*), with one folder of images per class, or with folders train
            and val of such folders.
        dst: Directory to write; it must be empty or not exist.
        split: Which split to write; a directory with one folder per class is `train` unless this says `val`.
        samples_per_shard: Number of samples in each shard except the last.
        train_per_class: Number of random training images of each class; null takes all.
        val_per_class: Number of random validation images of each class; null takes all.
        seed: Seed of the selection and the order.
        compress: Write `.tar.gz`, for small sets that are kept in memory, not for training from disk.

    Returns:
        Number of samples per shard by file name, as in the manifest.

    Raises:
        UserError: The layout of the source is not known, a class has too few images, a file cannot be read, or the
            target is not empty or cannot be written.
    """
    target = Path(dst)
    for key, value, minimum in (
        ("samples_per_shard", samples_per_shard, 1),
        ("train_per_class", train_per_class, 1),
        ("val_per_class", val_per_class, 1),
        ("seed", seed, 0),
    ):
        require_at_least(value, minimum, key)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"dst={dst}: already exists and is not an empty directory; choose another directory")
    splits = open_splits(Path(src), split)
    orders = {
        name: _choose(source, train_per_class if name == "train" else val_per_class, seed, name)
        for name, source in splits.items()
    }
    for name, source in splits.items():
        if source.skipped:
            print(f"{name}: files not packed: {format_counts(source.skipped)}", file=sys.stderr)
    return _write_directory(target, splits, orders, samples_per_shard, ".tar.gz" if compress else ".tar")


def _write_directory(
    target: Path,
    splits: dict[str, SourceSplit],
    orders: dict[str, NDArray[np.int64]],
    samples_per_shard: int,
    suffix: str,
) -> dict[str, int]:
    """Write the shards under a temporary name, then rename the directory; returns the number of samples per shard."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, folder=True, concurrent=True) as partial:
            return _write_splits(partial, splits, orders, samples_per_shard, suffix)
    except OSError as error:
        raise UserError(f"dst={target}: cannot be written ({error.strerror}); partial shards were removed") from None


def _write_splits(
    folder: Path,
    splits: dict[str, SourceSplit],
    orders: dict[str, NDArray[np.int64]],
    samples_per_shard: int,
    suffix: str,
) -> dict[str, int]:
    """Write the shards and the manifest; returns the number of samples per shard."""
    counts: dict[str, int] = {}
    advance = _progress(sum(map(len, orders.values())))
    for name, source in splits.items():
        order = orders[name]
        for number, first in enumerate(range(0, len(order), samples_per_shard)):
            shard = f"{name}-{number:04d}{suffix}"
            chunk = order[first : first + samples_per_shard]
            _write_shard(folder / shard, source, chunk, f"{name}-{{:07d}}", first, advance)
            counts[shard] = len(chunk)
    classes = next(iter(splits.values())).classes
    text = json.dumps({"shards": counts, "classes": classes}, indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return counts


def _progress(total: int) -> Callable[[], None]:
    """Return a function to be called after each image; every few seconds it prints the progress of the packing."""
    start = last_printed = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, last_printed
        done += 1
        now = time.monotonic()
        if now - last_printed > _PROGRESS_SECONDS:
            last_printed = now
            rate = done / (now - start)
            print(
                f"packing: {done:,} of {total:,} images, {rate:.0f} images/s, {(total - done) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )

    return advance


def _choose(split: SourceSplit, per_class: int | None, seed: int, name: str) -> NDArray[np.int64]:
    """Shuffled indices of the samples to write, `per_class` of each class."""
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(len(split.labels))
    if per_class is None:
        return order
    chosen = []
    for label, class_name in enumerate(split.classes):
        members = np.flatnonzero(split.labels[order] == label)[:per_class]
        if len(members) < per_class:
            raise UserError(
                f"{name}_per_class={per_class}: class {class_name} has only {len(members)} images; "
                "choose a smaller number"
            )
        chosen.append(members)
    return order[np.sort(np.concatenate(chosen))]


def _write_shard(
    path: Path, split: SourceSplit, order: NDArray[np.int64], key: str, first: int, advance: Callable[[], None]
) -> None:
    with _open_for_writing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, index in enumerate(order, first):
            image, suffix = split.read(int(index))
            label = str(int(split.labels[index])).encode()
            for data, ending in ((image, suffix), (label, LABEL_SUFFIX)):
                # a new TarInfo has no time, owner or group, so the same samples give the same bytes
                member = tarfile.TarInfo(f"{key.format(number)}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
            advance()


@contextmanager
def _open_for_writing(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb") as raw:
        if path.suffix == ".gz":
            # no name and no time in the header, for the same reason
            with gzip.GzipFile("", "wb", 9, raw, mtime=0) as packed:
                yield cast(IO[bytes], packed)
        else:
            yield raw
