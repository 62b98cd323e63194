"""Data modules of several ranks, simulated in one process."""

import torch
from shard_sets import COUNTS, GRAY
from torch.utils.data import DataLoader

from sinkablate.config import AugmentConfig, SourceConfig
from sinkablate.data.datamodule import ImageData
from sinkablate.data.samples import Sample

TOTAL = sum(COUNTS)
AUGMENT = AugmentConfig(scale=(0.3, 1.0), hflip=0.5, reprob=0.5)


class Ranked(ImageData):
    """The data module of one rank of several, simulated in one process."""

    rank_and_world = (0, 1)

    def _rank_and_world(self) -> tuple[int, int]:
        return self.rank_and_world


def ranks(source: SourceConfig, world: int, workers: int = 0, batch: int = 12, **options: object) -> list[Ranked]:
    out = []
    for rank in range(world):
        data = Ranked(source, GRAY, AUGMENT, batch_size=batch, eval_batch_size=5, num_workers=workers, **options)
        data.rank_and_world = (rank, world)
        data.setup("fit")
        out.append(data)
    return out


def read(loader: DataLoader[Sample]) -> list[Sample]:
    """Read all batches, then stop the workers; otherwise torch waits 5 s for each in the garbage collector."""
    try:
        return list(loader)
    finally:
        if loader._iterator is not None:  # type: ignore[attr-defined]
            loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
            loader._iterator = None  # type: ignore[attr-defined]


def by_key(batches: list[Sample]) -> dict[str, tuple[int, torch.Tensor]]:
    out = {}
    for batch in batches:
        for image, target, key in zip(batch.image, batch.target, batch.key, strict=True):
            assert key not in out
            out[key] = (int(target), image)
    return out
