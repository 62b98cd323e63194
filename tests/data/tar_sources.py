"""Configurations of tar shards, and the samples that a reader yields from them."""

import json
from pathlib import Path

from shard_sets import GRAY

from sinkablate.config import SourceConfig
from sinkablate.data.datamodule import ImageData


def source_of(root: Path, reader: str, count: int, name: str = "set.tar") -> SourceConfig:
    """A source that reads one tar file for training and validation."""
    (root / "manifest.json").write_text(json.dumps({"shards": {name: count}}))
    return SourceConfig(format="shards", train=str(root / name), val=str(root / name), num_classes=4, reader=reader)  # type: ignore[arg-type]


def keys(source: SourceConfig) -> dict[str, int]:
    data = ImageData(source, GRAY, batch_size=1)
    data.setup("fit")
    return {
        key: int(label) for batch in data.val_dataloader() for key, label in zip(batch.key, batch.target, strict=True)
    }
