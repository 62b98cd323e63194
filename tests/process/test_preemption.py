"""A run that a signal stops, at any step, saves itself, exits with 75 and resumes as if never stopped."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from running import CONFIGS, LIMIT, ROOT, Outcome, column, fit, metrics, quick_fit, run, summary
from signalling import signal_at

from sinkablate.callbacks.preemption import Preemption

STEPS = 8
ARGS = (
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=4",
    "--model.loss.mixup=0.5",
    "--model.ema.decay=0.9",
    "--model.backbone.drop_path_rate=0.2",
    "--diagnostics.every_n_steps=3",
)
CONFIG = [CONFIGS / "gate_reg.yaml"]


def state(run_dir: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    fit(run_dir, *ARGS, configs=CONFIG).succeeded()
    return run_dir


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that a signal stopped in its second epoch; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("interrupted") / "run"
    with signal_at(5):
        assert resumed(run_dir).code == 75
    return run_dir


def same_run(one: Path, other: Path) -> None:
    """Check that two runs have the same weights, history, metrics and per-head tables, to the last bit."""
    first, second = state(one), state(other)
    for name, tensor in first["state_dict"].items():
        assert torch.equal(second["state_dict"][name], tensor), name
    for name in ("loss", "grad"):
        assert first["callbacks"]["Stability"]["history"][name] == second["callbacks"]["Stability"]["history"][name]
    assert metrics(one) == metrics(other)
    for path in (one / "diagnostics").glob("*.parquet"):
        assert_frame_equal(pl.read_parquet(other / "diagnostics" / path.name), pl.read_parquet(path), check_exact=True)
    assert {p.name for p in (one / "diagnostics").iterdir()} == {p.name for p in (other / "diagnostics").iterdir()}


def resumed(run_dir: Path, *args: str) -> Outcome:
    return fit(run_dir, *ARGS, "--ckpt_path=auto", *args, configs=CONFIG)


@pytest.mark.parametrize(("step", "number"), [(0, signal.SIGTERM), (3, signal.SIGUSR1), (6, signal.SIGTERM)])
def test_a_signal_at_any_step_does_not_change_the_results(step: int, number: int, whole: Path, tmp_path: Path) -> None:
    """The first step, the last of an epoch (which is also measured and validated), and one within an epoch."""
    run_dir = tmp_path / "run"
    with signal_at(step, number):
        stopped = resumed(run_dir)
    assert (stopped.code, "starting from scratch" in stopped.err) == (75, True)
    marker = json.loads((run_dir / "PREEMPTED").read_text())
    assert marker == {"signal": signal.Signals(number).name, "step": step + 1}
    assert f"at step {step + 1}" in stopped.out
    assert not (run_dir / "DONE").exists()
    assert state(run_dir)["global_step"] == step + 1
    again = resumed(run_dir).succeeded()
    assert "resuming from" in again.err
    same_run(whole, run_dir)
    assert (run_dir / "DONE").exists()
    assert not (run_dir / "PREEMPTED").exists()
    assert summary(run_dir)["restarts"] == 1


def test_a_run_is_not_stopped_between_accumulated_batches(tmp_path: Path) -> None:
    accumulated = ("--trainer.accumulate_grad_batches=2", "--data.num_workers=1")
    fit(tmp_path / "whole", *ARGS, *accumulated, configs=CONFIG).succeeded()
    with signal_at(1):  # in the first of the two batches of step 2
        assert resumed(tmp_path / "run", *accumulated).code == 75
    assert state(tmp_path / "run")["global_step"] == 2
    resumed(tmp_path / "run", *accumulated).succeeded()
    same_run(tmp_path / "whole", tmp_path / "run")


def test_a_signal_in_the_last_step_lets_the_run_finish(whole: Path, tmp_path: Path) -> None:
    with signal_at(STEPS - 1):
        resumed(tmp_path / "run").succeeded()
    same_run(whole, tmp_path / "run")


def test_a_finished_run_is_left_alone(whole: Path) -> None:
    before = (whole / "summary.json").stat().st_mtime_ns
    again = resumed(whole).succeeded()
    assert "contains the finished run; nothing to do" in again.err
    assert (whole / "summary.json").stat().st_mtime_ns == before


@pytest.mark.heavy
def test_a_signal_during_the_imports_stops_the_run_at_its_first_step(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = quick_fit(run_dir, *ARGS, configs=CONFIG)
    code = (
        "import os, signal, sys; import sinkablate.__main__ as main; import builtins; real = builtins.__import__\n"
        "def load(name, *rest, **more):\n"
        "    if name == 'torch' and 'torch' not in sys.modules: os.kill(os.getpid(), signal.SIGUSR1)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = load\n"
        f"sys.exit(main.main({words!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 75, done.stderr
    assert json.loads((run_dir / "PREEMPTED").read_text()) == {"signal": "SIGUSR1", "step": 0}


def test_a_damaged_checkpoint_is_ignored(whole: Path, interrupted: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(interrupted, tmp_path / "run", symlinks=True))
    stopped = run_dir / "checkpoints" / "stopped.ckpt"
    stopped.write_bytes(stopped.read_bytes()[:1000])
    again = resumed(run_dir).succeeded()
    assert "checkpoint ignored: " in again.err
    assert "stopped.ckpt: truncated" in again.err
    same_run(whole, run_dir)


def test_a_foreign_checkpoint_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("# written by sinkablate 0\n")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "run" / "checkpoints" / "foreign.ckpt")
    started = resumed(tmp_path / "run").succeeded()
    assert "foreign.ckpt: not a checkpoint of a run" in started.err
    assert "starting from scratch" in started.err


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--model.backbone.registers=2",), "model.backbone.registers=2 differs from the checkpoint's 4"),
        (("--data.batch_size=8",), "data.batch_size=8 differs from the checkpoint's 16"),
        (("--model.optim.lr=5e-3",), "model.optim.lr=0.005 differs from the checkpoint's 0.003"),
        (("--model.loss.smoothing=0.1",), "model.loss.smoothing=0.1 differs from the checkpoint's 0.0"),
        (("--trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches=2 differs from the checkpoint's 1"),
    ],
)
def test_a_run_with_other_settings_does_not_resume_from_it(args: tuple[str, ...], line: str, interrupted: Path) -> None:
    refused = resumed(interrupted, *args)
    assert (refused.code, line in refused.err) == (2, True), refused.err


@pytest.fixture
def full_disk() -> Iterator[Any]:
    """Limits the size of files."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("policy", ["stop", "continue"])
def test_a_full_disk_keeps_the_previous_checkpoint(
    policy: str, tmp_path: Path, full_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"

    def fill(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 1:
            trainer.strategy.checkpoint_io.wait()
            full_disk(100_000)

    monkeypatch.setattr(Preemption, "on_train_epoch_start", fill)
    done = fit(run_dir, *ARGS, f"--on_checkpoint_failure={policy}", "--diagnostics.every_n_steps=100", configs=CONFIG)
    assert not list((run_dir / "checkpoints").glob(".*"))
    assert state(run_dir)["global_step"] == 4
    assert (done.code, (run_dir / "DONE").exists()) == (2, False)
    if policy == "stop":
        assert "cannot be written (File too large); earlier checkpoints are intact" in done.err
    else:
        assert f"the final weights, from step {STEPS}, could not be written" in done.err
        assert len(column(run_dir, "train/loss")) == STEPS


def test_two_checkpoints_and_a_link_are_kept(whole: Path) -> None:
    names = sorted(path.name for path in (whole / "checkpoints").iterdir())
    assert names == ["epoch=1-step=8.ckpt", "last.ckpt", "previous.ckpt"]
    assert (whole / "checkpoints" / "last.ckpt").resolve().name == "epoch=1-step=8.ckpt"
    assert torch.load(whole / "checkpoints" / "previous.ckpt", weights_only=True)["global_step"] == 4
    run("validate", "--config", whole / "config.yaml", "--run_dir", whole, "--ckpt_path", "auto").succeeded()
