"""The images of a diagnosis: where they are, and how each becomes a tensor; numbered from 0 in a fixed order."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch import Tensor

from sinkablate.config import ImageConfig
from sinkablate.data.layout import IMAGE_SUFFIXES, SHARD_SUFFIXES, DataError, expand, is_metadata
from sinkablate.data.probe import ProbeSet
from sinkablate.data.samples import Encoded, checked_image
from sinkablate.errors import UserError

BUILTIN = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "motorcycle_left.png",
           "motorcycle_right.png", "rocket.jpg", "brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg",
           "moon.png", "retina.jpg", "clock_motion.png")
"""Pictures that scikit-image ships."""
LIST_SUFFIXES = (".txt", ".lst")


class Picture(NamedTuple):
    """One image, not read yet."""

    name: str
    load: Callable[[], Tensor]
    """To (C, H, W); raises `DataError` when the image cannot be read or is too small."""


@dataclass(frozen=True)
class Preparation:
    """From an encoded image to a tensor.

    Args:
        transform: The model's own.
        in_chans: Files are converted to so many channels.
        min_side: An image with a shorter side below this is refused.
    """

    transform: Callable[[Image.Image], Tensor]
    in_chans: int
    min_side: int

    def __call__(self, encoded: Encoded) -> Tensor:
        """Decode, check and transform.

        Raises:
            DataError: The image cannot be decoded or is too small.
        """
        neutral = ImageConfig(in_chans=self.in_chans, convert=True, mean=(0.5,) * self.in_chans,
                              std=(0.5,) * self.in_chans)
        image = checked_image(encoded, neutral)
        if min(image.size) < self.min_side:
            raise DataError(f"{encoded.origin}: {encoded.key}: {image.width} x {image.height} pixels are too small "
                            f"(min_side={self.min_side})")
        return self.transform(image)


class Pictures:
    """A set of images in a fixed order.

    Args:
        location: A folder, a list file (.txt, .lst: one path a line, relative to the file), one image, WebDataset
            shards (path, brace list, directory, URL or pipe), or `builtin`.
        prepare: From an encoded image to a tensor.

    Raises:
        UserError: There is no such thing, or it holds no image.
    """

    def __init__(self, location: str, prepare: Callable[[Encoded], Tensor]) -> None:
        self.prepare = prepare
        self.files: list[Path] = []
        self.shards: Sequence[str] = ()
        self.root = Path(location)
        if location == "builtin":
            self.root, self.files = _builtin()
        elif self.root.suffix.lower() in LIST_SUFFIXES:
            self.files, self.root = _listed(self.root), self.root.parent
        elif self.root.is_file() and self.root.suffix.lower().lstrip(".") in IMAGE_SUFFIXES:
            self.files, self.root = [self.root], self.root.parent
        elif self.root.is_dir() and not any(entry.name.endswith(SHARD_SUFFIXES) for entry in self.root.iterdir()):
            self.files = sorted(p for p in self.root.rglob("*") if p.suffix.lower().lstrip(".") in IMAGE_SUFFIXES)
            if not self.files:
                raise UserError(f"images={location}: the folder holds no image ({', '.join(IMAGE_SUFFIXES)})")
        else:
            self.shards = expand(location, "images")
            missing = next((s for s in self.shards if "://" not in s and not s.startswith("pipe:")
                            and not Path(s).is_file()), None)
            if missing:
                raise UserError(f"images={missing}: no such file or folder")

    def __len__(self) -> int:
        """Number of images; 0 where only reading the shards would tell."""
        return len(self.files)

    def start(self, first: int) -> Iterator[Picture]:
        """Yield the pictures from number `first` on; those before are passed over, not decoded."""
        return islice(self._shard_pictures() if self.shards else self._file_pictures(), first, None)

    def _file_pictures(self) -> Iterator[Picture]:
        for path in self.files:
            name = str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)
            yield Picture(name, lambda path=path, name=name: self._read(path, name))  # type: ignore[misc]

    def _read(self, path: Path, name: str) -> Tensor:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: the file cannot be read ({error.strerror})") from None
        return self.prepare(Encoded(data, 0, name, str(self.root)))

    def _shard_pictures(self) -> Iterator[Picture]:
        from webdataset.tariterators import tarfile_samples

        for shard in self.shards:
            try:
                for sample in tarfile_samples([{"url": shard}]):
                    suffixes = [key for key in sample if key.lower() in IMAGE_SUFFIXES]
                    if suffixes and not is_metadata(sample["__key__"]):
                        yield self._picture_of(sample, suffixes[0], shard)
            except Exception as error:  # whatever tarfile, the opener or a command raises
                raise UserError(f"images={shard}: the shard cannot be read ({error})") from None

    def _picture_of(self, sample: dict[str, Any], suffix: str, shard: str) -> Picture:
        encoded = Encoded(sample[suffix], 0, sample["__key__"], shard)
        return Picture(sample["__key__"], lambda: self.prepare(encoded))


class Given:
    """Images, or sequences, that a run has ready."""

    def __init__(self, given: ProbeSet) -> None:
        self.images, self.names, self.targets = given

    def __len__(self) -> int:
        return len(self.names)

    def start(self, first: int) -> Iterator[Picture]:
        """Yield the pictures from number `first` on."""
        for place in range(first, len(self.names)):
            yield Picture(self.names[place], lambda place=place: self.images[place])  # type: ignore[misc]


def _builtin() -> tuple[Path, list[Path]]:
    try:
        import skimage
    except ImportError as error:
        raise UserError("images=builtin needs the package scikit-image: pip install scikit-image") from error
    root = Path(skimage.__file__).parent / "data"
    return root, [root / name for name in BUILTIN if (root / name).is_file()]


def _listed(path: Path) -> list[Path]:
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"images={path}: the list cannot be read ({error})") from None
    files = [path.parent / line for line in lines if line and not line.startswith("#")]
    if not files:
        raise UserError(f"images={path}: the list is empty")
    return files
