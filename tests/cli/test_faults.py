"""What breaks while a run trains: a shard, a process, the machine. The run says so in a line, and nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from running import CONFIGS, ROOT, Outcome, column, fit, metrics, quick_fit

from sinkablate.callbacks.preemption import Preemption

CONFIG = [CONFIGS / "gate_reg.yaml"]
EVERY_STEP = ("--checkpoint.every_n_train_steps=1",)
ON_SHARDS = ("--data.image.in_chans=3", "--data.image.mean=[.5,.5,.5]", "--data.image.std=[.5,.5,.5]",
             "--data.image.size=28", "--data.source.format=shards", "--data.batch_size=8", "--trainer.max_epochs=2",
             "--trainer.limit_train_batches=1.0", "--diagnostics.every_n_steps=4", *EVERY_STEP)
STEPS = 10
"""Two epochs of forty images in batches of eight."""
READERS = {"indexed": (), "stream": ("--data.source.reader=stream", "--data.source.shuffle_shards=1"),
           "stream, workers": ("--data.source.reader=stream", "--data.num_workers=2")}


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """A set of shards that may be damaged."""
    return Path(shutil.copytree(shards, tmp_path / "set"))


def on(shards: Path) -> tuple[str, ...]:
    return (*ON_SHARDS, f"--data.source.train={shards}/train-{{0000..0003}}.tar",
            f"--data.source.val={shards}/val-{{0000..0001}}.tar")


def train(run_dir: Path, shards: Path, *args: str) -> Outcome:
    return fit(run_dir, *on(shards), *args, "--ckpt_path=auto", configs=CONFIG)


def state(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def same_end(one: Path, other: Path) -> None:
    """The same weights and training losses, to the last bit."""
    first, second = state(one), state(other)
    assert first["global_step"] == second["global_step"]
    for name, tensor in first["state_dict"].items():
        assert torch.equal(second["state_dict"][name], tensor), name
    assert column(other, "train/loss") == column(one, "train/loss")


def during(step: int, do: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something in the middle of a training step."""
    def hook(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == step:
            do()
    monkeypatch.setattr(Preemption, "on_before_backward", hook)


def truncate(shard: Path) -> None:
    os.truncate(shard, 600)


@pytest.mark.parametrize(("reader", "damage"), [("indexed", truncate), ("stream", truncate), ("stream", Path.unlink)])
def test_a_shard_that_breaks_stops_the_run_which_goes_on_when_it_is_back(
        reader: str, damage: Callable[[Path], None], shards: Path, copied: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", copied, *READERS[reader]).succeeded()
    run_dir = tmp_path / "run"
    during(2, lambda: damage(copied / "train-0002.tar"), monkeypatch)
    broken = train(run_dir, copied, *READERS[reader])
    assert (broken.code, len(broken.err.strip().splitlines()[-1:])) == (2, 1)
    last = broken.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "train-0002.tar" in last
    assert "Traceback" not in broken.err
    assert not (run_dir / "DONE").exists()
    assert 2 < state(run_dir)["global_step"] < STEPS
    monkeypatch.undo()
    shutil.copy2(shards / "train-0002.tar", copied / "train-0002.tar")
    train(run_dir, copied, *READERS[reader]).succeeded()
    same_end(tmp_path / "whole", run_dir)
    assert metrics(run_dir) == metrics(tmp_path / "whole")


@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_a_shard_that_breaks_is_passed_over_where_that_is_asked(
        reader: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    during(2, lambda: truncate(copied / "train-0002.tar"), monkeypatch)
    train(tmp_path / "run", copied, *READERS[reader], "--data.source.on_error=skip").succeeded()
    assert "skipped: train-0002.tar" in caplog.text
    assert len(column(tmp_path / "run", "train/loss")) == STEPS


@pytest.mark.parametrize("reader", READERS)
def test_a_signal_with_either_reader_changes_nothing(reader: str, shards: Path, tmp_path: Path, signalled: Any,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path / "whole", shards, *READERS[reader]).succeeded()
    signalled(6)  # in the second epoch
    assert train(tmp_path / "run", shards, *READERS[reader]).code == 75
    assert state(tmp_path / "run")["global_step"] == 7
    monkeypatch.undo()
    train(tmp_path / "run", shards, *READERS[reader]).succeeded()
    same_end(tmp_path / "whole", tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")
