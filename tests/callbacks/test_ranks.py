"""`sa.SinkDiagnostics` on several ranks measures the images of rank 0."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from forking import started
from torch import distributed, nn
from torch.utils.data import DataLoader, Dataset

import sinkablate as sa


class Noise(Dataset[Any]):
    """Images that depend on the rank, as those of a sharded data set."""

    def __init__(self, rank: int, count: int = 9) -> None:
        self.images = torch.randn(count, 1, 28, 28, generator=torch.Generator().manual_seed(rank))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        return self.images[index]


def sinks(rank: int, count: int = 9) -> sa.SinkDiagnostics:
    return sa.SinkDiagnostics(DataLoader(Noise(rank, count), batch_size=4, shuffle=count > 0), limit=7)


def model() -> nn.Module:
    return sa.create_model("vit_mini", embed_dim=32, num_heads=2, depth=2)


def of_rank(rank: int, folder: Path) -> None:
    """Measure in one of two processes, and write what each got."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    scalars, message = sinks(rank).measure(model(), 0), ""
    try:
        sinks(rank, count=9 * rank).measure(model(), 0)
    except sa.UserError as error:
        message = str(error)
    (folder / f"{rank}.json").write_text(json.dumps([scalars, message]))
    distributed.destroy_process_group()


def test_all_ranks_measure_the_images_of_the_first(tmp_path: Path) -> None:
    for process in [started(of_rank, rank, tmp_path) for rank in range(2)]:
        process.join(120)
    (first, message), other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert other == [first, message]
    assert message == "images is empty; at least one image is needed"
    assert first == pytest.approx(sinks(0).measure(model(), 0), rel=1e-4)
