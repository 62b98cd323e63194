"""Options for how training is computed (processes, recomputation, compilation) do not change its result."""

import itertools
from pathlib import Path

import pytest
import torch
from running import CONFIGS, column, fit, forked, metrics, quick_fit, together

STEPS = 50
CONFIG = [CONFIGS / "gate_reg.yaml"]
LONG = ("--trainer.limit_train_batches=50", "--diagnostics.every_n_steps=25", "--data.augment.color_jitter=0.3")


def losses(run_dir: Path) -> list[float]:
    return [float(value) for value in column(run_dir, "train/loss").values()]


@pytest.mark.heavy
def test_one_two_and_four_processes_give_the_same_loss_curve(tmp_path: Path) -> None:
    """Global batches and augmentation do not depend on the number of processes.

    The test uses float64: in float32, a different order of summation causes differences of 1e-4 within 50
    steps of AdamW.
    """
    curves = []
    for count in (1, 2, 4):
        run_dir = tmp_path / str(count)
        strategy = ("--trainer.strategy=ddp",) if count > 1 else ()
        together(
            count, *quick_fit(run_dir, *LONG, *strategy, "--trainer.precision=64-true", configs=CONFIG)
        ).succeeded()
        curves.append(losses(run_dir))
    for one, other in itertools.pairwise(curves):
        assert len(one) == STEPS
        assert other == pytest.approx(one, rel=1e-8)


def test_activation_checkpointing_gives_identical_results(tmp_path: Path) -> None:
    short = ("--trainer.limit_train_batches=6", "--diagnostics.every_n_steps=3", "--model.backbone.drop_path_rate=0.2")
    for name, args in {"plain": (), "recomputed": ("--model.backbone.grad_checkpointing=true",)}.items():
        fit(tmp_path / name, *short, *args, configs=CONFIG).succeeded()
    assert losses(tmp_path / "recomputed") == losses(tmp_path / "plain")
    assert column(tmp_path / "recomputed", "sink/mass_max") == column(tmp_path / "plain", "sink/mass_max")


@pytest.mark.heavy
def test_compilation_keeps_parameter_names_and_the_loss(tmp_path: Path) -> None:
    short = (
        "--trainer.limit_train_batches=6",
        "--diagnostics.every_n_steps=3",
        "--model.ema.decay=0.9",
        "--model.backbone.depth=1",
    )
    for name, args in {"plain": (), "compiled": ("--model.compile=true",)}.items():
        forked(*quick_fit(tmp_path / name, *short, *args, configs=CONFIG)).succeeded()
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "plain"), rel=1e-4)
    plain, compiled = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("plain", "compiled")
    )
    assert compiled.keys() == plain.keys()


@pytest.mark.heavy
def test_two_processes_with_all_options_agree_with_one(tmp_path: Path) -> None:
    """Accumulation, moving average, compile, activation checkpointing, clipping and diagnostics, in float64."""
    everything = (
        "--trainer.limit_train_batches=6",
        "--trainer.accumulate_grad_batches=2",
        "--model.compile=true",
        "--model.ema.decay=0.9",
        "--model.backbone.grad_checkpointing=true",
        "--trainer.precision=64-true",
        "--trainer.gradient_clip_val=0.1",
        "--diagnostics.every_n_steps=2",
        "--trainer.limit_val_batches=1.0",
        "--data.eval_batch_size=500",
        "--model.backbone.depth=2",
    )
    for name, count, args in (("one", 1, ()), ("two", 2, ("--trainer.strategy=ddp",))):
        together(count, *quick_fit(tmp_path / name, *everything, *args, configs=CONFIG)).succeeded()
    rows, others = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(rows) == len(others) == 4
    for row, other in zip(rows, others, strict=True):
        for name, value in row.items():
            assert bool(other[name]) == bool(value), name
            if value:
                limit = 1e-9 if name.startswith("train/") else 1e-5
                assert float(other[name]) == pytest.approx(float(value), rel=limit, abs=limit), name
    one, two = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    )
    assert two.keys() == one.keys()
    assert any(name.startswith("ema.") for name in one)
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-6, atol=1e-9)
