"""The steps at which a model is measured during training."""

from pathlib import Path

import pytest
from running import fit, metrics
from training import train

from sinkablate.data.datamodule import ImageData
from sinkablate.tasks.classify import Classify


def test_an_interval_of_zero_turns_measuring_off(tmp_path: Path) -> None:
    fit(tmp_path / "run", "--diagnostics.every_n_steps=0").succeeded()
    assert not any(name.startswith(("sink/", "norm/", "gate/")) for name in metrics(tmp_path / "run")[0])
    assert not (tmp_path / "run" / "diagnostics").exists()


@pytest.mark.parametrize(
    ("batches", "accumulate", "every", "steps"),
    [
        (4, 1, 1, [0, 1, 2, 3, 4]),
        (5, 1, 2, [0, 2, 4, 5]),
        (4, 1, 2, [0, 2, 4]),
        (2, 1, 50, [0, 2]),
        (5, 2, 1, [0, 1, 2, 3]),
        (9, 3, 2, [0, 2, 3]),
    ],
)
def test_each_due_optimizer_step_is_measured_once(
    batches: int, accumulate: int, every: int, steps: list[int], data: ImageData, tmp_path: Path
) -> None:
    assert train(tmp_path, data, Classify(), batches, every, accumulate_grad_batches=accumulate) == steps
    files = sorted((tmp_path / "diagnostics").glob("*.parquet"))
    assert [path.name for path in files] == [f"step_{step:08d}.parquet" for step in steps]
