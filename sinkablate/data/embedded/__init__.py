"""A small subset of Fashion-MNIST as WebDataset shards; see the README next to this file."""

from collections.abc import Sequence
from pathlib import Path

from sinkablate.data.errors import ErrorPolicy
from sinkablate.data.samples import Encoded, decode
from sinkablate.data.tar_index import TarRecords

EMBEDDED_IMAGES = 10_000
"""Number of images in the training split."""


class EmbeddedRecords:
    """The embedded images. Each is decoded when it is first read and then kept, because decoding is the slowest step.

    Args:
        split: `train` (10,000 images) or `val` (2,000).
        num_classes: Number of classes; labels must be smaller.
        on_error: What happens at an unreadable shard.
    """

    def __init__(self, split: str, *, num_classes: int, on_error: ErrorPolicy) -> None:
        shards = sorted(str(path) for path in Path(__file__).parent.glob(f"{split}-*.tar.gz"))
        self._records = TarRecords(shards, num_classes=num_classes, on_error=on_error)
        self._decoded: dict[int, Encoded] = {}

    def __len__(self) -> int:
        return len(self._records)

    @property
    def labels(self) -> Sequence[int]:
        """The label of every sample."""
        return self._records.labels

    def digest(self) -> str:
        """Return a hash of the keys, labels, sizes and positions of all samples."""
        return self._records.digest()

    def __getitem__(self, index: int) -> Encoded:
        if index not in self._decoded:
            encoded = self._records[index]
            self._decoded[index] = encoded._replace(image=decode(encoded))
        return self._decoded[index]
