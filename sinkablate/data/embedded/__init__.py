"""A small subset of Fashion-MNIST as WebDataset shards; see the README beside this file."""

from pathlib import Path

from sinkablate.data.samples import Encoded, ErrorPolicy, decode
from sinkablate.data.tar_index import TarRecords

EMBEDDED_IMAGES = 10_000
"""Of the training split."""


class EmbeddedRecords:
    """The embedded images, each decoded when it is first read and kept: decoding takes longer than all transforms.

    Args:
        split: `train` (10,000 images) or `val` (2,000).
        num_classes: Labels must lie below.
        faults: What an unreadable shard does.
    """

    def __init__(self, split: str, *, num_classes: int, faults: ErrorPolicy) -> None:
        shards = sorted(str(path) for path in Path(__file__).parent.glob(f"{split}-*.tar.gz"))
        self._records = TarRecords(shards, num_classes=num_classes, faults=faults)
        self._decoded: dict[int, Encoded] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Encoded:
        if index not in self._decoded:
            encoded = self._records[index]
            self._decoded[index] = encoded._replace(image=decode(encoded))
        return self._decoded[index]
