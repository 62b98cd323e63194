"""What breaks while a run trains: a shard, a process, the machine. The run says so in a line, and nothing is lost."""

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
    """A set of shards that may be damaged."""
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
def test_a_shard_that_breaks_is_passed_over_where_that_is_asked(
    reader: str, copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    during(2, lambda: truncate(copied / "train-0002.tar"), monkeypatch)
    train(tmp_path / "run", copied, *READERS[reader], "--data.source.on_error=skip").succeeded()
    assert "skipped: train-0002.tar" in caplog.text
    assert len(column(tmp_path / "run", "train/loss")) == STEPS


@pytest.mark.parametrize("reader", READERS)
def test_a_signal_with_either_reader_changes_nothing(reader: str, shards: Path, tmp_path: Path) -> None:
    train(tmp_path / "whole", shards, *READERS[reader]).succeeded()
    with signal_at(6):  # in the second epoch
        assert train(tmp_path / "run", shards, *READERS[reader]).code == 75
    assert state(tmp_path / "run")["global_step"] == 7
    train(tmp_path / "run", shards, *READERS[reader]).succeeded()
    same_end(tmp_path / "whole", tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


@pytest.mark.heavy
@pytest.mark.parametrize("reader", ["indexed", "stream"])
def test_more_processes_go_on_where_the_batches_stay_the_same(reader: str, shards: Path, tmp_path: Path) -> None:
    """A permutation is cut into the same global batches by any number of processes; a stream is not."""
    whole, run_dir = tmp_path / "whole", tmp_path / "run"
    train(whole, shards, *READERS[reader], "--checkpoint.save_top_k=-1", "--checkpoint.filename=s{step}").succeeded()
    args = (*on(shards), *READERS[reader], "--trainer.devices=2", "--trainer.strategy=ddp")
    third = whole / "checkpoints" / "sstep=3.ckpt"
    two_go_on = forked(*quick_fit(run_dir, *args, "--ckpt_path", third, configs=CONFIG))
    if reader == "stream":
        assert two_go_on.code == 2
        assert "error: readers=2 differs from the checkpoint's 1 (processes times data.num_workers)" in two_go_on.err
        assert "Traceback" not in two_go_on.err
        assert not run_dir.exists()
    else:
        expected = {at: float(loss) for at, loss in column(whole, "train/loss").items() if int(at) >= 3}
        got = {at: float(loss) for at, loss in column(two_go_on.succeeded() and run_dir, "train/loss").items()}
        assert got == pytest.approx(expected, rel=1e-4)


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
def test_a_run_killed_in_a_step_loses_what_came_after_its_last_checkpoint(cadence: int, tmp_path: Path) -> None:
    """In the first step and the last, on either side of the epochs' border, and where a measurement has just been."""
    words = (*EIGHT, f"--checkpoint.every_n_train_steps={cadence}")
    fit(tmp_path / "whole", *words, configs=CONFIG).succeeded()
    for step in (0, 3, 4, 7):
        run_dir = tmp_path / str(step)
        with started(*quick_fit(run_dir, *words, configs=CONFIG), before=partial(die_in_step, step)) as command:
            assert command.wait() == -signal.SIGKILL, command.said()
        again = fit(run_dir, *words, "--ckpt_path=auto", configs=CONFIG).succeeded()
        begun = re.search(r"step=(\d+)\.ckpt", again.err)
        least = step // cadence * cadence - cadence  # the one at hand was perhaps still being written
        assert (int(begun[1]) if begun else 0) in range(max(0, least), step + 1), again.err
        same_end(tmp_path / "whole", run_dir)
        assert (run_dir / "DONE").exists()


def two(run_dir: Path, *args: str) -> Command:
    """A long run of two processes, which the trainer starts."""
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
    """The process that the trainer started beside itself."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(pid)], capture_output=True, text=True, check=True)
    (line,) = [line for line in found.stdout.splitlines() if "sinkablate" in line]
    return int(line.split()[0])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.heavy
@pytest.mark.parametrize("which", ["first", "second"])
def test_the_others_stop_when_a_process_dies(which: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with two(run_dir) as parent:
        until((run_dir / "checkpoints" / "last.ckpt").exists, parent)
        child = child_of(parent.pid)
        killed, left = (parent.pid, child) if which == "first" else (child, parent.pid)
        os.kill(killed, signal.SIGKILL)
        try:
            until(lambda: not alive(left))
        finally:
            for pid in (left, killed):
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
        code, (_, err) = parent.wait(), parent.said()
    assert not (run_dir / "DONE").exists()
    if which == "second":
        assert code not in (0, 2), err
        assert "error: another process of this run has died" in err
        assert "Traceback" not in err
    begun = state(run_dir)["global_step"]
    fit(
        run_dir,
        f"--trainer.max_epochs={begun // 2 + 1}",
        "--diagnostics.every_n_steps=0",
        "--ckpt_path=auto",
        *EVERY_STEP,
        configs=CONFIG,
    ).succeeded()
    there = set(map(int, column(run_dir, "train/loss")))  # a loss is logged just after its step's checkpoint
    assert there | {begun - 1} == set(range(begun // 2 * 2 + 2))
