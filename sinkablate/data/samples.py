"""One sample on its way from the bytes in its source, through the checked image, to the tensor that a model gets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from sinkablate.config import ImageConfig
from sinkablate.data.decode import decode_image, with_channels
from sinkablate.data.samplers import Draw, seed_from_draw


class Sample(NamedTuple):
    """An image with its label; a batch is the same tuple with stacked fields."""

    image: Tensor
    """(C, H, W) fp32, normalized; in a batch (B, C, H, W)."""
    target: int
    """The label; in a batch (B,) int64."""
    key: str
    """The name of the sample in its source; in a batch a list."""


class Encoded(NamedTuple):
    """A sample as its source stores it."""

    image: bytes | Image.Image
    """Content of the image file, or the decoded image of a small set that is kept in memory."""
    target: int
    key: str
    origin: str
    """The shard or folder, for messages."""


class Records(Protocol):
    """Encoded samples that can be read in any order."""

    @property
    def labels(self) -> Sequence[int]:
        """The label of every sample, without reading any."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Encoded:
        """Read one sample; raises `DataError` if it cannot be read."""

    def digest(self) -> str:
        """Return a hash of the names, sizes and labels of all samples, in their order."""


def collate(samples: list[Sample]) -> Sample | None:
    """Stack samples into a batch as torch does by default; return None if all samples of the batch were skipped."""
    if not samples:
        return None
    batch: Sample = default_collate(samples)
    return batch._replace(key=list(batch.key))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Preparation:
    """Turns an encoded sample into a tensor.

    Args:
        image: Requirements on the image.
        transform: From a PIL image to a (C, H, W) tensor; it may draw from the global random states.
        seed: The run's seed, which makes the random transform a function of (seed, draw); None if the transform is
            deterministic.
    """

    image: ImageConfig
    transform: Callable[[Image.Image], Tensor]
    seed: int | None = None

    def __call__(self, encoded: Encoded, draw: Draw) -> Sample:
        """Decode, check and transform the image.

        Raises:
            DataError: The image cannot be decoded or has the wrong number of channels.
        """
        image = checked_image(encoded, self.image)
        if self.seed is not None:
            seed_from_draw(self.seed, draw)
        return Sample(self.transform(image), encoded.target, encoded.key)


def decode(encoded: Encoded) -> Image.Image:
    """Return the decoded image of a sample.

    Raises:
        DataError: The image cannot be decoded.
    """
    if isinstance(encoded.image, Image.Image):
        return encoded.image
    return decode_image(encoded.image, f"{encoded.origin}: {encoded.key}")


def checked_image(encoded: Encoded, config: ImageConfig) -> Image.Image:
    """Decode an image and check, or convert, its channels.

    Raises:
        DataError: The image cannot be decoded, or has the wrong number of channels and `data.image.convert` is off.
    """
    return with_channels(decode(encoded), config, f"{encoded.origin}: {encoded.key}")
