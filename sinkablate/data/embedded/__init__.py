"""A small subset of Fashion-MNIST as WebDataset shards; see the README beside this file."""

from pathlib import Path

from sinkablate.data.index import TarRecords
from sinkablate.data.samples import Encoded, Faults, decode

EMBEDDED_IMAGES = 10_000
"""Of the training split."""


class EmbeddedRecords:
    """The embedded images, decoded once: decoding a 28 x 28 PNG takes longer than all that is done to it afterwards.

    Args:
        split: `train` (10,000 images) or `val` (2,000).
        num_classes: Labels must lie below.
        faults: What an unreadable shard does.
    """

    def __init__(self, split: str, *, num_classes: int, faults: Faults) -> None:
        shards = sorted(str(path) for path in Path(__file__).parent.glob(f"{split}-*.tar.gz"))
        records = TarRecords(shards, num_classes=num_classes, faults=faults)
        encoded = (records[index] for index in range(len(records)))
        self.samples = [sample._replace(image=decode(sample)) for sample in encoded]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Encoded:
        return self.samples[index]
