"""One sample on its way: bytes in a shard, checked image, training tensor; and what happens to one that is broken."""

import logging
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from sinkablate.config import ImageConfig
from sinkablate.data.decode import decode_image, with_channels
from sinkablate.data.layout import REASONS, DataError
from sinkablate.data.samplers import Draw, seed_everything_from

log = logging.getLogger(__name__)


class Sample(NamedTuple):
    """An image with its label; a batch is the same tuple of stacked fields."""

    image: Tensor
    """(C, H, W) fp32, normalized; in a batch (B, C, H, W)."""
    target: int
    """The label; in a batch (B,) int64."""
    key: str
    """The sample's name in its source; in a batch a list."""


class Encoded(NamedTuple):
    """A sample as it lies in its source."""

    image: bytes | Image.Image
    """The file, or what it decodes to where a small set is kept in memory."""
    target: int
    key: str
    origin: str
    """The shard or folder, for messages."""


class Records(Protocol):
    """Encoded samples that can be read in any order."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Encoded:
        """Read one sample; raises `DataError` when it cannot be read."""


def collate(samples: list[Sample]) -> Sample | None:
    """torch's default batch of samples, or None where each was skipped."""
    if not samples:
        return None
    batch: Sample = default_collate(samples)
    return batch._replace(key=list(batch.key))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Preparation:
    """From an encoded sample to a tensor.

    Args:
        image: What the file must be.
        transform: From a PIL image to a (C, H, W) tensor; draws from the global random states if it draws at all.
        seed: The run's seed: the transform's draws become a function of (seed, draw). None: the transform has none.
    """

    image: ImageConfig
    transform: Callable[[Image.Image], Tensor]
    seed: int | None = None

    def __call__(self, encoded: Encoded, draw: Draw) -> Sample:
        """Decode, check and transform.

        Raises:
            DataError: The image cannot be decoded or has the wrong number of channels.
        """
        image = checked_image(encoded, self.image)
        if self.seed is not None:
            seed_everything_from(self.seed, draw)
        return Sample(self.transform(image), encoded.target, encoded.key)


def decode(encoded: Encoded) -> Image.Image:
    """The image of a sample, decoded unless it was kept so.

    Raises:
        DataError: It cannot be decoded.
    """
    if isinstance(encoded.image, Image.Image):
        return encoded.image
    return decode_image(encoded.image, f"{encoded.origin}: {encoded.key}")


def checked_image(encoded: Encoded, config: ImageConfig) -> Image.Image:
    """Decode an image and see to its channels.

    Raises:
        DataError: It cannot be decoded, or has another number of channels and `data.image.convert` is off.
    """
    return with_channels(decode(encoded), config, f"{encoded.origin}: {encoded.key}")


class ErrorPolicy:
    """What an unreadable shard or sample does, as `data.source.on_error` says; counts over all worker processes."""

    def __init__(self, mode: Literal["stop", "skip"]) -> None:
        self.mode = mode
        self._counts = multiprocessing.Array("q", len(REASONS))

    @property
    def counts(self) -> dict[str, int]:
        """Samples skipped so far, and shards skipped as a whole, by reason."""
        with self._counts:
            return {reason: count for reason, count in zip(REASONS, self._counts[:], strict=True) if count}

    def report(self, error: DataError, count: int = 1) -> None:
        """Raise the error, or count and name it.

        Raises:
            DataError: `error`, with the way out, when the mode is `stop`.
        """
        if self.mode == "stop":
            raise DataError(f"{error} (data.source.on_error=skip would go on without it)", error.reason)
        with self._counts:
            self._counts[REASONS.index(error.reason)] += count
        log.warning("skipped: %s", error)
