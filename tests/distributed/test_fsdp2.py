"""A model sharded across two ranks (FSDP2) trains, measures, saves and resumes like a replicated one (DDP)."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal, assert_series_equal
from running import CONFIGS, assert_refused, checkpoint, column, fit, metrics, quick_fit, run, summary, together

CONFIG = [CONFIGS / "gate_reg.yaml"]
ARGS = (
    "--trainer.limit_train_batches=4",
    "--trainer.max_epochs=2",
    "--trainer.accumulate_grad_batches=2",
    "--trainer.gradient_clip_val=0.1",
    "--model.ema.decay=0.9",
    "--diagnostics.every_n_steps=2",
    "--diagnostics.images=7",
    "--checkpoint.every_n_train_steps=1",
    "--checkpoint.save_top_k=-1",
    "--checkpoint.filename=s{step}",
)
"""Arguments of a fit of four steps with two batches each, clipped at every step and measured at steps 0, 2 and 4."""


def launch(run_dir: Path, strategy: str, *args: str | Path) -> Path:
    """Train on two ranks with a strategy."""
    together(2, *quick_fit(run_dir, *ARGS, f"--trainer.strategy={strategy}", *args, configs=CONFIG)).succeeded()
    return run_dir


@pytest.fixture(scope="module")
def ddp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with DDP."""
    return launch(tmp_path_factory.mktemp("ddp") / "run", "ddp")


@pytest.fixture(scope="module")
def fsdp2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with FSDP2."""
    return launch(tmp_path_factory.mktemp("fsdp2") / "run", "fsdp2")


def assert_same_state(one: dict[str, Any], other: dict[str, Any], tolerance: float) -> None:
    """Check that weights, moving averages and optimizer states are equal plain tensors with the same names."""
    assert other["state_dict"].keys() == one["state_dict"].keys()
    pairs = [(one["state_dict"], other["state_dict"])]
    (first,), (second,) = one["optimizer_states"], other["optimizer_states"]
    assert [g["params"] for g in second["param_groups"]] == [g["params"] for g in first["param_groups"]]
    pairs += [(first["state"][number], second["state"][number]) for number in first["state"]]
    for left, right in pairs:
        for name, tensor in left.items():
            assert type(right[name]) is torch.Tensor
            torch.testing.assert_close(right[name], tensor, rtol=0, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.heavy
def test_metrics_agree_with_ddp(ddp: Path, fsdp2: Path) -> None:
    rows, others = metrics(ddp), metrics(fsdp2)
    assert len(rows) == len(others) == 5
    for row, other in zip(rows, others, strict=True):
        for name, value in row.items():
            assert bool(other[name]) == bool(value), name
            if value:
                limit = 1e-4 if name == "gate/corr" else 1e-6  # a correlation while attention is almost uniform
                assert float(other[name]) == pytest.approx(float(value), rel=limit, abs=limit), name
    one, other = (json.loads((path / "summary.json").read_text()) for path in (ddp, fsdp2))
    assert (
        other["parameters"]
        == one["parameters"]
        == sum(tensor.numel() for name, tensor in checkpoint(ddp)["state_dict"].items() if name.startswith("backbone."))
    )
    assert (one["world_size"], other["world_size"]) == (2, 2)


@pytest.mark.heavy
@pytest.mark.parametrize("folder", ["diagnostics", "diagnostics/blocks"])
def test_diagnostics_agree_with_ddp(folder: str, ddp: Path, fsdp2: Path) -> None:
    for step in (0, 2, 4):
        one, other = (pl.read_parquet(path / folder / f"step_{step:08d}.parquet") for path in (ddp, fsdp2))
        counts = [name for name, kind in one.schema.items() if kind.is_integer()]
        assert_frame_equal(other.select(counts), one.select(counts))
        for name in one.columns:
            limit = 1e-3 if name.endswith("gate_corr") else 1e-5
            assert_series_equal(other[name], one[name], rel_tol=limit, abs_tol=limit)


@pytest.mark.heavy
def test_the_checkpoint_agrees_with_ddp(ddp: Path, fsdp2: Path) -> None:
    assert_same_state(checkpoint(ddp), checkpoint(fsdp2), 1e-4)


@pytest.mark.heavy
def test_a_resumed_run_gives_identical_results(fsdp2: Path, tmp_path: Path) -> None:
    resumed = launch(tmp_path / "run", "fsdp2", "--ckpt_path", fsdp2 / "checkpoints" / "sstep=1.ckpt")
    assert_same_state(checkpoint(fsdp2), checkpoint(resumed), 0)
    assert column(resumed, "train/loss") == {
        step: loss for step, loss in column(fsdp2, "train/loss").items() if int(step) > 0
    }


@pytest.mark.heavy
def test_a_run_can_be_resumed_and_evaluated_in_one_process(fsdp2: Path, tmp_path: Path) -> None:
    one = tmp_path / "run"
    fit(one, *ARGS, "--ckpt_path", fsdp2 / "checkpoints" / "sstep=1.ckpt", configs=CONFIG).succeeded()
    assert_same_state(checkpoint(fsdp2), checkpoint(one), 1e-4)
    config = (
        "--config",
        fsdp2 / "config.yaml",
        "--trainer.devices=1",
        "--trainer.strategy=auto",
        "--trainer.limit_val_batches=2",
    )  # one batch of each rank
    last = fsdp2 / "checkpoints" / "last.ckpt"
    run("validate", *config, "--ckpt_path", last, "--run_dir", tmp_path / "v").succeeded()
    results = json.loads((tmp_path / "v" / "validate.json").read_text())
    for name in ("val/loss", "val/acc1", "val/acc5"):
        assert results[name] == pytest.approx(float(list(column(fsdp2, name).values())[-1]), rel=1e-5)
    run("diagnose", "--run", fsdp2, "--out", tmp_path / "out", "--limit", "4").succeeded()
    assert summary(tmp_path / "out")["image_count"] == 4


def test_a_toy_is_not_sharded(tmp_path: Path) -> None:
    outcome = run(
        "fit",
        "--config",
        CONFIGS / "toy" / "nop.yaml",
        "--trainer.strategy=fsdp2",
        "--trainer.devices=1",
        "--trainer.accelerator=cpu",
        "--run_dir",
        tmp_path / "run",
    )
    assert_refused(outcome, "trainer.strategy=fsdp2: ToyTraining cannot be sharded")
    assert not (tmp_path / "run").exists()
