"""Failures during training, of a shard, a process or the machine, are reported in one line and lose nothing."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from forking import Command, die_in_step
from running import CONFIGS, Outcome, column, fit, forked, metrics, quick_fit, started, until
from signalling import signal_at

from sinkablate.callbacks.preemption import Preemption

CONFIG = [CONFIGS / "gate_reg.yaml"]
EVERY_STEP = ("--checkpoint.every_n_train_steps=1",)
ON_SHARDS = (
    "--data.image.in_chans=3",
    "--data.image.mean=[.5,.5,.5]",
    "--data.image.std=[.5,.5,.5]",
    "--data.image.size=28",
    "--data.source.format=shards",
    "--data.batch_size=8",
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=1.0",
    "--diagnostics.every_n_steps=4",
    *EVERY_STEP,
)
STEPS = 10
"""Two epochs of forty images in batches of eight."""
READERS = {
    "indexed": (),
    "stream": ("--data.source.reader=stream", "--data.source.shuffle_shards=1"),
    "stream, workers": ("--data.source.reader=stream", "--data.num_workers=2"),
}


@pytest.fixture
def copied(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards that tests may damage."""
    return Path(shutil.copytree(shards, tmp_path / "set"))


def on(shards: Path) -> tuple[str, ...]:
    return (
        *ON_SHARDS,
        f"--data.source.train={shards}/train-{{0000..0003}}.tar",
        f"--data.source.val={shards}/val-{{0000..0001}}.tar",
    )


def train(run_dir: Path, shards: Path, *args: str) -> Outcome:
    return fit(run_dir, *on(shards), *args, "--ckpt_path=auto", configs=CONFIG)


def state(run_dir: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint


def same_end(one: Path, other: Path) -> None:
    """Check that two runs have the same weights and training losses, to the last bit."""
    first, second = state(one), state(other)
    assert first["global_step"] == second["global_step"]
    for name, tensor in first["state_dict"].items():
        assert torch.equal(second["state_dict"][name], tensor), name
    assert column(other, "train/loss") == column(one, "train/loss")


def during(step: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call a function in the middle of a training step."""

    def hook(_self: Any, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == step:
            action()

    monkeypatch.setattr(Preemption, "on_before_backward", hook)


def truncate(shard: Path) -> None:
    os.truncate(shard, 600)


@pytest.mark.parametrize(("reader", "damage"), [("indexed", truncate), ("stream", truncate), ("stream", Path.unlink)])
def test_a_shard_that_breaks_stops_the_run_which_resumes_once_it_is_restored(
    reader: str,
    damage: Callable[[Path], None],
    shards: Path,
    copied: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
def test_a_shard_that_breaks_can_be_skipped(
    reader: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    during(2, lambda: truncate(copied / "train-0002.tar"), monkeypatch)
    train(tmp_path / "run", copied, *READERS[reader], "--data.source.on_error=skip").succeeded()
    assert "skipped: train-0002.tar" in caplog.text
    assert len(column(tmp_path / "run", "train/loss")) == STEPS


@pytest.mark.filterwarnings("error:.*loader is not resumable")  # Lightning's opinion, which does not apply here
@pytest.mark.parametrize("reader", READERS)
def test_a_signal_does_not_change_the_results_of_either_reader(reader: str, shards: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", shards, *READERS[reader]).succeeded()
    with signal_at(6):  # in the second epoch
        assert train(tmp_path / "run", shards, *READERS[reader]).code == 75
    assert state(tmp_path / "run")["global_step"] == 7
    train(tmp_path / "run", shards, *READERS[reader]).succeeded()
    same_end(tmp_path / "whole", tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_more_processes_can_resume_if_the_batches_stay_the_same(reader: str, shards: Path, tmp_path: Path) -> None:
    """A permutation gives the same global batches for any number of processes; a stream does not."""
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    train(whole, shards, *READERS[reader], "--checkpoint.save_top_k=-1", "--checkpoint.filename=s{step}").succeeded()
    args = (*on(shards), *READERS[reader], "--trainer.devices=2", "--trainer.strategy=ddp")
    third = whole / "checkpoints" / "sstep=3.ckpt"
    resumed = forked(*quick_fit(run_dir, *args, "--ckpt_path", third, configs=CONFIG))
    if reader == "stream":
        assert resumed.code == 2
        assert "error: readers=2 differs from the checkpoint's 1 (processes times data.num_workers)" in resumed.err
        assert "Traceback" not in resumed.err
        assert not run_dir.exists()
    else:
        expected = {step: float(loss) for step, loss in column(whole, "train/loss").items() if int(step) >= 3}
        losses = {number: float(loss) for number, loss in column(resumed.succeeded() and run_dir, "train/loss").items()}
        assert losses == pytest.approx(expected, rel=1e-4)


EIGHT = (
    "--trainer.max_epochs=2",
    "--trainer.limit_train_batches=4",
    "--model.loss.mixup=0.5",
    "--model.ema.decay=0.9",
    "--model.backbone.drop_path_rate=0.2",
    "--diagnostics.every_n_steps=3",
)


@pytest.mark.heavy
@pytest.mark.parametrize("cadence", [1, 3], ids="every {} steps".format)
def test_a_killed_run_loses_only_the_steps_after_its_last_checkpoint(cadence: int, tmp_path: Path) -> None:
    """Killed in the first and the last step, on both sides of the end of an epoch, and just after a measurement."""
    words = (*EIGHT, f"--checkpoint.every_n_train_steps={cadence}")
    fit(tmp_path / "whole", *words, configs=CONFIG).succeeded()
    for step in (0, 3, 4, 7):
        run_dir = tmp_path / str(step)
        with started(*quick_fit(run_dir, *words, configs=CONFIG), before=partial(die_in_step, step)) as command:
            assert command.wait() == -signal.SIGKILL, command.output()
        again = fit(run_dir, *words, "--ckpt_path=auto", configs=CONFIG).succeeded()
        resumed_from = re.search(r"step=(\d+)\.ckpt", again.err)
        earliest = step // cadence * cadence - cadence  # the latest checkpoint may still have been in progress
        assert (int(resumed_from[1]) if resumed_from else 0) in range(max(0, earliest), step + 1), again.err
        same_end(tmp_path / "whole", run_dir)
        assert (run_dir / "DONE").exists()


def two_processes(run_dir: Path, *args: str) -> Command:
    """A long run of two processes, started by the trainer."""
    return started(
        *quick_fit(
            run_dir,
            "--trainer.max_epochs=500",
            "--trainer.devices=2",
            "--trainer.strategy=ddp",
            "--diagnostics.every_n_steps=0",
            *EVERY_STEP,
            *args,
            configs=CONFIG,
        )
    )


def child_of(pid: int) -> int:
    """The second process, which the trainer started."""
    listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    (line,) = [line for line in listing.stdout.splitlines() if "sinkablate" in line]
    return int(line.split()[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["first", "second"])
def test_the_other_processes_stop_when_one_dies(which: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with two_processes(run_dir) as parent:
        until((run_dir / "checkpoints" / "last.ckpt").exists, parent)
        child = child_of(parent.pid)
        killed, survivor = (parent.pid, child) if which == "first" else (child, parent.pid)
        os.kill(killed, signal.SIGKILL)
        try:
            until(lambda: not alive(survivor))
        finally:
            for pid in (survivor, killed):
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
        code, (_, err) = parent.wait(), parent.output()
    assert not (run_dir / "DONE").exists()
    if which == "second":
        assert code not in (0, 2), err
        assert "error: another process of this run has died" in err
        assert "Traceback" not in err
    saved_step = state(run_dir)["global_step"]
    fit(
        run_dir,
        f"--trainer.max_epochs={saved_step // 2 + 1}",
        "--diagnostics.every_n_steps=0",
        "--ckpt_path=auto",
        *EVERY_STEP,
        configs=CONFIG,
    ).succeeded()
    logged = set(map(int, column(run_dir, "train/loss")))  # a loss is logged just after the checkpoint of its step
    assert logged | {saved_step - 1} == set(range(saved_step // 2 * 2 + 2))
