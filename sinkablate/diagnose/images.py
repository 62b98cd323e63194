"""The images of a diagnosis, numbered from 0 in a fixed order, and how each becomes a tensor."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import Tensor

from sinkablate.config import ImageConfig
from sinkablate.data.errors import DataError
from sinkablate.data.file_names import IMAGE_SUFFIXES, image_suffix
from sinkablate.data.image_files import format_counts, image_files, size_and_time
from sinkablate.data.locations import SHARD_SUFFIXES, expand_location, is_remote, shard_name, shards_in
from sinkablate.data.probe import ProbeSet
from sinkablate.data.samples import Encoded, checked_image
from sinkablate.data.tar import TarSample, stream_samples
from sinkablate.errors import UserError

BUILTIN = (
    "astronaut.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "motorcycle_left.png",
    "motorcycle_right.png",
    "rocket.jpg",
    "brick.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "moon.png",
    "retina.jpg",
    "clock_motion.png",
)
"""Photographs that scikit-image ships."""
LIST_SUFFIXES = (".txt", ".lst")


class LazyImage(NamedTuple):
    """An image that has not been read yet."""

    name: str
    load: Callable[[], Tensor]
    """Returns (C, H, W); raises `DataError` if the image cannot be read or is too small."""


@dataclass(frozen=True)
class Preparation:
    """Turns an encoded image into a tensor.

    Args:
        transform: The preprocessing of the model.
        in_chans: Number of channels to which files are converted.
        min_side: Smallest shorter side in pixels.
    """

    transform: Callable[[Image.Image], Tensor]
    in_chans: int
    min_side: int

    def __call__(self, encoded: Encoded) -> Tensor:
        """Decode, check and transform.

        Raises:
            DataError: The image cannot be decoded or is too small.
        """
        neutral = ImageConfig(
            in_chans=self.in_chans, convert=True, mean=(0.5,) * self.in_chans, std=(0.5,) * self.in_chans
        )
        image = checked_image(encoded, neutral)
        if min(image.size) < self.min_side:
            raise DataError(
                f"{encoded.origin}: {encoded.key}: {image.width} x {image.height} pixels is too small "
                f"(min_side={self.min_side})",
                "too small",
            )
        return self.transform(image)


class ImageSource:
    """A set of images in a fixed order.

    Args:
        location: A folder, a list file (.txt, .lst: one path per line, relative to the file), one image, WebDataset
            shards (path, brace list, directory, URL or pipe), or `builtin`.
        prepare: Turns an encoded image into a tensor.

    Raises:
        UserError: The location does not exist or holds no images.
    """

    def __init__(self, location: str, prepare: Callable[[Encoded], Tensor]) -> None:
        self.prepare = prepare
        self.files: list[Path] = []
        self.skipped: Counter[str] = Counter()
        """Files of a folder that are not images, by reason."""
        self.shards: Sequence[str] = ()
        self.root = Path(location)
        if location == "builtin":
            self.root, self.files = _builtin()
        elif self.root.is_dir() and not shards_in(location):
            files, self.skipped = image_files(location)
            self.files = sorted(map(Path, files))
            if not self.files:
                skipped = f"; skipped: {format_counts(self.skipped)}" if self.skipped else ""
                raise UserError(f"images={location}: the folder holds no images ({', '.join(IMAGE_SUFFIXES)}){skipped}")
        elif self.root.is_dir() and image_files(location).files:
            raise UserError(
                f"images={location}: the folder holds shards and images; name the shards with "
                f"images='{location}/*.tar', or a folder of images only"
            )
        elif self.root.suffix.lower() in LIST_SUFFIXES:
            self.files, self.root = _listed(self.root), self.root.parent
        elif self.root.is_file() and self.root.suffix.lower().lstrip(".") in IMAGE_SUFFIXES:
            self.files, self.root = [self.root], self.root.parent
        else:
            self.shards = expand_location(location, "images")
            for shard in self.shards:
                if not is_remote(shard):
                    _require_shard(shard)

    def __len__(self) -> int:
        """Number of images; 0 if it is unknown before the shards are read."""
        return len(self.files)

    def digest(self) -> str:
        """Return a hash of the names, sizes and times of the last change of all files or shards; of a URL, its name."""
        content = hashlib.sha256()
        for path in map(str, self.files or self.shards):
            content.update(f"{Path(path).name}\0{size_and_time(path)}\n".encode(errors="surrogateescape"))
        return content.hexdigest()

    def start(self, first: int) -> Iterator[LazyImage]:
        """Yield the images from number `first` on; earlier ones are skipped without decoding."""
        return islice(self._shard_images() if self.shards else self._file_images(), first, None)

    def _file_images(self) -> Iterator[LazyImage]:
        for path in self.files:
            name = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
            yield LazyImage(name, lambda path=path, name=name: self._read(path, name))  # type: ignore[misc]

    def _read(self, path: Path, name: str) -> Tensor:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror})", "unreadable file") from None
        return self.prepare(Encoded(data, 0, name, str(self.root)))

    def _shard_images(self) -> Iterator[LazyImage]:
        for shard in self.shards:
            try:
                for sample in stream_samples(shard):
                    yield self._image_of(sample, shard)
            except DataError as error:
                raise UserError(f"images={shard}: {error}") from None

    def _image_of(self, sample: TarSample, shard: str) -> LazyImage:
        where = f"{shard_name(shard)}: {sample.key}"
        suffix = image_suffix(list(sample.parts), where)

        def load() -> Tensor:
            if sample.fault:
                raise sample.fault
            if suffix is None:
                raise DataError(f"{where}: holds no image, only {sorted(sample.parts)}", "no image or no label")
            return self.prepare(Encoded(sample.parts[suffix], 0, sample.key, shard))

        return LazyImage(sample.key, load)


def _require_shard(path: str) -> None:
    """Check that a file exists and could be a shard.

    Raises:
        UserError: It does not exist, or cannot be a shard.
    """
    if not Path(path).is_file():
        raise UserError(f"images={path}: no such file or folder")
    if not path.lower().endswith(SHARD_SUFFIXES):
        raise UserError(
            f"images={path}: neither an image ({', '.join(IMAGE_SUFFIXES)}) nor a list "
            f"({', '.join(LIST_SUFFIXES)}) nor a shard ({', '.join(SHARD_SUFFIXES)})"
        )


class InMemoryImages:
    """Images or sequences that are already tensors."""

    def __init__(self, probe_set: ProbeSet) -> None:
        self.skipped: Counter[str] = Counter()
        self.images, self.names, self.targets = probe_set

    def __len__(self) -> int:
        return len(self.names)

    def start(self, first: int) -> Iterator[LazyImage]:
        """Yield the images from number `first` on."""
        for number in range(first, len(self.names)):
            yield LazyImage(self.names[number], lambda number=number: self.images[number])  # type: ignore[misc]


def _builtin() -> tuple[Path, list[Path]]:
    try:
        import skimage
    except ImportError as error:
        raise UserError("images=builtin needs the scikit-image package: pip install scikit-image") from error
    root = Path(skimage.__file__).parent / "data"
    return root, [root / name for name in BUILTIN if (root / name).is_file()]


def _listed(path: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"images={path}: the list cannot be read ({error})") from None
    files = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not files:
        raise UserError(f"images={path}: the list is empty")
    return files
