"""A toy can be evaluated at log-spaced steps while its sink forms."""

from pathlib import Path

import polars as pl
import pytest
from running import CONFIGS, run

from sinkablate.errors import UserError
from sinkablate.toys.data import ToyData

SMALL = ("--model.toy.tokens=6", "--model.toy.width=8", "--data.batch_size=8", "--data.eval_size=16", "--data.steps=6")
FEW = ("--trainer.max_epochs=2", "--diagnostics.every_n_steps=0", "--trainer.accelerator=cpu", "--wandb.mode=disabled")


def evaluations(folder: Path, *more: str) -> pl.DataFrame:
    config = CONFIGS / "toy" / "nop.yaml"
    run("fit", "--config", config, *SMALL, *FEW, *more, "--run_dir", folder).succeeded()
    return pl.read_csv(folder / "metrics.csv").filter(pl.col("toy/mass").is_not_null()).sort("step")


def test_early_steps_are_evaluated_and_training_stays_the_same(tmp_path: Path) -> None:
    dense, sparse = evaluations(tmp_path / "dense", "--data.per_doubling=2"), evaluations(tmp_path / "sparse")
    assert sparse["step"].to_list() == [5, 11]
    assert dense["step"].to_list() == [0, 1, 2, 3, 5, 7, 10, 11]  # 1, 1.4, 2, 2.8, 4, 5.7, 8, 11.3, and the epochs
    scalars = ["val/loss", *(name for name in sparse.columns if name.startswith("toy/"))]
    assert dense.filter(pl.col("step").is_in([5, 11])).select(scalars).equals(sparse.select(scalars))
    assert dense["val/loss"].n_unique() == len(dense)


def test_accumulated_batches_are_evaluated_once_per_step(tmp_path: Path) -> None:
    rows = evaluations(tmp_path / "run", "--data.per_doubling=2", "--trainer.accumulate_grad_batches=2")
    assert rows["step"].to_list() == [0, 1, 2, 3, 5]  # 1, 1.4, 2, 2.8, 4, 5.7, and the epochs of three steps


def test_a_negative_number_of_early_evaluations_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.per_doubling"):
        ToyData(per_doubling=-1)
    assert not ToyData().early_steps
