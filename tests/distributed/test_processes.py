"""Two processes train, evaluate and measure like one, and write every file once."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal, assert_series_equal
from running import CONFIGS, Outcome, checkpoint, column, forked, free_port, metrics, quick_fit, spawn

pytestmark = pytest.mark.heavy

STEPS = (0, 2, 3)
TWO = ("--trainer.devices=2", "--trainer.strategy=ddp")


def fit_args(run_dir: Path, *args: str) -> list[str]:
    """Arguments of a fit of three steps that evaluates on all 2,000 images and measures an odd number of them."""
    return quick_fit(
        run_dir,
        "--trainer.limit_train_batches=3",
        "--trainer.limit_val_batches=1.0",
        "--wandb.mode=offline",
        "--data.eval_batch_size=250",
        "--diagnostics.images=7",
        "--diagnostics.every_n_steps=2",
        "--diagnostics.heatmap=true",
        *args,
        configs=[CONFIGS / "gate_reg.yaml"],
    )


def torchrun() -> tuple[str, ...]:
    """Arguments of the launcher of two processes, on a free port."""
    return (
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--master_addr=127.0.0.1",
        f"--master_port={free_port()}",
    )


def tolerance(name: str) -> float:
    """Tolerance for a quantity: correlations are ill-conditioned while attention is still almost uniform."""
    return 0.05 if name.endswith("gate_corr") or name == "gate/corr" else 1e-5


Launch = tuple[Path, Outcome]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """A run in one process."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    return run_dir, forked(*fit_args(run_dir)).succeeded()


@pytest.fixture(scope="module", params=["started by the trainer", "started by torchrun"])
def together(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """A run in two processes that communicate with gloo."""
    run_dir = tmp_path_factory.mktemp("two") / "run"
    launch = partial(spawn, launcher=torchrun()) if request.param.endswith("torchrun") else forked
    return run_dir, launch(*fit_args(run_dir, *TWO)).succeeded()


def test_metrics_agree_with_one_process(alone: Launch, together: Launch) -> None:
    one, two = alone[0], together[0]
    rows, others = metrics(one), metrics(two)
    assert [row["step"] for row in others] == [row["step"] for row in rows] == list("0123")
    assert column(two, "val/acc1") == column(one, "val/acc1") != {}
    for row, other in zip(rows, others, strict=True):
        assert {name for name, value in row.items() if value} == {name for name, value in other.items() if value}
        for name, value in row.items():
            if value:
                assert float(other[name]) == pytest.approx(float(value), rel=1e-4, abs=tolerance(name)), name


@pytest.mark.parametrize("folder", ["diagnostics", "diagnostics/blocks"])
def test_diagnostics_agree_with_one_process(folder: str, alone: Launch, together: Launch) -> None:
    for step in STEPS:
        one, two = (pl.read_parquet(launch[0] / folder / f"step_{step:08d}.parquet") for launch in (alone, together))
        counts = [name for name, kind in one.schema.items() if kind.is_integer()]
        assert {"step", "block"} <= set(counts)
        assert_frame_equal(two.select(counts), one.select(counts))
        for name in one.columns:
            assert_series_equal(two[name], one[name], rel_tol=1e-4, abs_tol=tolerance(name))
    assert len(list((together[0] / folder).iterdir())) == len(list((alone[0] / folder).iterdir()))


def test_the_checkpoint_agrees_with_one_process(alone: Launch, together: Launch) -> None:
    one, two = checkpoint(alone[0]), checkpoint(together[0])
    assert two["state_dict"].keys() == one["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(two["state_dict"][name], tensor, rtol=1e-3, atol=1e-4), name
    history, other = (state["callbacks"]["Stability"]["history"] for state in (one, two))
    for name in ("loss", "grad"):
        assert other[name] == pytest.approx(history[name], rel=1e-4)


LISTINGS: dict[str, Callable[[Path], Any]] = {
    "everything": lambda run_dir: sorted(
        str(p.relative_to(run_dir)) for p in run_dir.rglob("*") if "wandb" not in p.parts
    ),
    "W&B": lambda run_dir: len(list((run_dir / "wandb").glob("offline-run-*/*.wandb"))),
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS.keys())
def test_the_files_agree_with_one_process(listing: Callable[[Path], Any], alone: Launch, together: Launch) -> None:
    assert listing(together[0]) == listing(alone[0])


def test_everything_is_written_and_printed_once(together: Launch) -> None:
    run_dir, outcome = together
    assert len(list((run_dir / "wandb").glob("offline-run-*"))) == 1
    assert not list(run_dir.rglob("*.partial"))
    lines = outcome.out.splitlines()
    for phrase in (
        "vit_mini-gate_reg-s0",
        "validation accuracy",
        "sinks per image, causal",
        "run directory:",
        "W&B: offline",
    ):
        assert sum(phrase in line for line in lines) == 1, outcome.out
    steps = [int(row["step"]) for row in metrics(run_dir)]
    assert len(steps) == len(set(steps))


def test_two_processes_print_the_same_as_one(alone: Launch, together: Launch) -> None:
    changing = ("images/s", "wall time", "memory", "run directory", "epoch ", "W&B", "─")
    one, two = (
        [line for line in launch[1].out.splitlines() if not any(phrase in line for phrase in changing)]
        for launch in (alone, together)
    )
    assert two == one
