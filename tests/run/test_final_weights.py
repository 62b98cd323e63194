"""DONE means that the final weights are on disk, and that the summary describes them."""

import errno
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from running import column, fit, metrics, summary

from sinkablate.callbacks.nan_guard import NanGuard
from sinkablate.run.checkpoints import furthest_checkpoint

EPOCHS = ("--trainer.max_epochs=3", "--trainer.limit_train_batches=3", "--diagnostics.every_n_steps=0")
STEPS = 9


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["global_step"])


def steps_saved(run_dir: Path) -> set[int]:
    return {step_of(path) for path in (run_dir / "checkpoints").glob("*.ckpt")}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs with a checkpoint after each; tests must not change it."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    fit(run_dir, *EPOCHS, "--checkpoint.save_top_k=-1").succeeded()
    return run_dir


@pytest.mark.parametrize(
    ("words", "saved"),
    [
        ("--checkpoint.every_n_train_steps=2", {8, 9}),
        ("--checkpoint.every_n_train_steps=1000", {6, 9}),
        ("--checkpoint.train_time_interval=01:00:00", {6, 9}),
        ("--checkpoint.every_n_epochs=2", {6, 9}),
        ("--checkpoint.save_top_k=0", {9}),
        ("--checkpoint.save_last=true", {6, 9}),
        ("--checkpoint.monitor=val/loss --checkpoint.mode=max", None),  # the first has the highest loss
        ("--trainer.check_val_every_n_epoch=2 --checkpoint.every_n_train_steps=2", {8, 9}),
    ],
    ids=str,
)
def test_the_final_weights_are_saved_whatever_the_cadence(
    words: str, saved: set[int] | None, plain: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    fit(run_dir, *EPOCHS, *words.split()).succeeded()
    assert (run_dir / "DONE").exists()
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == STEPS
    expected = torch.load(plain / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last["state_dict"][name], tensor) for name, tensor in expected.items())
    assert saved in (None, steps_saved(run_dir))
    assert summary(run_dir)["val/acc1"] == summary(plain)["val/acc1"], "the accuracy is that of the final weights"


def test_a_run_that_ends_within_an_epoch_is_saved_and_validated(tmp_path: Path) -> None:
    fit(tmp_path / "run", *EPOCHS, "--trainer.max_steps=2").succeeded()
    assert steps_saved(tmp_path / "run") == {2}
    assert column(tmp_path / "run", "val/acc1") == {"1": str(summary(tmp_path / "run")["val/acc1"])}


def test_final_weights_that_cannot_be_written_leave_the_run_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, real = tmp_path / "run", torch.save

    def full(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
        if content["global_step"] == STEPS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(content, file, *args, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    done = fit(run_dir, *EPOCHS, "--on_checkpoint_failure=continue")
    assert (done.code, done.err.count("error: ")) == (2, 1)
    assert (
        f"final weights, from step {STEPS}, could not be written, and the latest checkpoint is from step 6" in done.err
    )
    assert not (run_dir / "DONE").exists()
    monkeypatch.undo()
    again = fit(run_dir, *EPOCHS, "--ckpt_path=auto").succeeded()
    assert "resuming from" in again.err
    assert step_of(run_dir / "checkpoints" / "last.ckpt") == STEPS


def test_a_run_that_died_before_it_finished_is_finished(tmp_path: Path) -> None:
    measured = (*EPOCHS, "--diagnostics.every_n_steps=3", "--checkpoint.every_n_train_steps=2")
    run_dir = tmp_path / "run"
    fit(run_dir, *measured).succeeded()
    before, rows = summary(run_dir), metrics(run_dir)
    for name in ("DONE", "summary.json"):
        (run_dir / name).unlink()
    fit(run_dir, *measured, "--ckpt_path=auto").succeeded()
    assert (run_dir / "DONE").exists()
    process_keys = {"wall_seconds", "images_per_second", "peak_memory_gib", "restarts"}
    step_keys = {"train/loss", "lr", "stability/grad_norm"}  # no step was trained
    differing = {key for key in before if summary(run_dir).get(key) != before[key]}
    assert differing <= process_keys | step_keys, differing
    changed = [
        (was["step"], key)
        for was, now in zip(rows, metrics(run_dir), strict=True)
        for key in was
        if was[key] != now[key] and key != "epoch"
    ]  # except the epoch, which has ended by now
    assert changed == []


def test_training_continues_from_final_weights_as_from_those_of_an_epoch(plain: Path, tmp_path: Path) -> None:
    fit(tmp_path / "short", *EPOCHS, "--checkpoint.save_top_k=0").succeeded()
    ends = []
    for number, start in enumerate((plain, tmp_path / "short")):
        run_dir = tmp_path / str(number)
        fit(run_dir, *EPOCHS, "--trainer.max_epochs=4", "--ckpt_path", start / "checkpoints" / "last.ckpt").succeeded()
        ends.append(torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())
    assert metrics(tmp_path / "0") == metrics(tmp_path / "1")


def checkpoint(run_dir: Path, name: str, step: int, *epoch: int, **more: Any) -> Path:
    """Write a checkpoint at a position in training; each new file has an earlier time than the previous ones."""
    path = run_dir / "checkpoints" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    progress = dict(zip(("ready", "started", "processed", "completed"), epoch, strict=True))
    torch.save(
        {
            "state_dict": {},
            "hyper_parameters": {},
            "optimizer_states": [],
            "global_step": step,
            "loops": {"fit_loop": {"epoch_progress": {"current": progress}}},
        }
        | more,
        path,
    )
    time = 1_000_000_000 - len(list(path.parent.iterdir()))
    os.utime(path, (time, time))
    return path


def test_the_furthest_checkpoint_is_found_by_its_step_not_its_time(tmp_path: Path) -> None:
    checkpoint(tmp_path, "previous.ckpt", 3, 1, 1, 1, 0)
    checkpoint(tmp_path, "epoch=1-step=6.ckpt", 6, 2, 2, 2, 1)
    assert furthest_checkpoint(tmp_path)[0] == tmp_path / "checkpoints" / "epoch=1-step=6.ckpt"
    copied = checkpoint(tmp_path, "last.ckpt", 6, 2, 2, 2, 1)
    assert furthest_checkpoint(tmp_path)[0] != copied, "of two equal checkpoints, the one with its own name"
    stopped = checkpoint(tmp_path, "stopped.ckpt", 6, 2, 2, 2, 2)
    checkpoint(tmp_path, "s6.ckpt", 6, 2, 2, 1, 1)
    checkpoint(tmp_path, "nonfinite.ckpt", 8, 3, 3, 2, 2)
    assert furthest_checkpoint(tmp_path)[0] == stopped, "its epoch had ended"
    further = checkpoint(tmp_path, "last.ckpt", 7, 3, 3, 2, 2)
    assert furthest_checkpoint(tmp_path) == (further, [])
    alone = checkpoint(tmp_path, "alone.ckpt", 9, 3, 3, 3, 2)
    torch.save({"state_dict": {}, "hyper_parameters": {}, "global_step": 9}, alone)
    further.write_bytes(further.read_bytes()[:50])
    furthest, faults = furthest_checkpoint(tmp_path)
    assert furthest == stopped
    assert [("alone.ckpt" in fault, "last.ckpt" in fault) for fault in faults] == [(True, False), (False, True)]


def test_a_run_with_a_nan_loss_resumes_before_that_step(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"

    def spoil(self: NanGuard, trainer: L.Trainer, module: L.LightningModule, loss: torch.Tensor) -> None:
        real(self, trainer, module, loss * float("nan") if trainer.global_step == 4 else loss)

    real = NanGuard.on_before_backward
    monkeypatch.setattr(NanGuard, "on_before_backward", spoil)
    assert fit(run_dir, *EPOCHS).code == 2
    assert steps_saved(run_dir) == {3, 4}
    assert step_of(run_dir / "checkpoints" / "last.ckpt") == 3
    monkeypatch.undo()
    again = fit(run_dir, *EPOCHS, "--ckpt_path=auto").succeeded()
    assert "step=3.ckpt" in again.err
    assert not (run_dir / "checkpoints" / "nonfinite.ckpt").exists()
    assert column(run_dir, "train/loss") == column(plain, "train/loss")
