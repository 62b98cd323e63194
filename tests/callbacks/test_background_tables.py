"""The tables of a measurement are written while training continues, and a checkpoint waits for those of its step."""

import threading
from pathlib import Path
from typing import Any

import pytest
from running import assert_refused, fit

from sinkablate.callbacks import run_diagnostics
from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.process.background import Background
from sinkablate.run.checkpoint_io import AtomicCheckpointIO

EVERY_STEP = ("--diagnostics.every_n_steps=1", "--checkpoint.every_n_train_steps=1", "--trainer.limit_train_batches=3")


def test_a_checkpoint_has_the_tables_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No table is written before the training waits for it, which is what makes this test fail without a thread."""
    write, wait, save = run_diagnostics._write, Background.wait, AtomicCheckpointIO.save_checkpoint
    waited_for, complete = threading.Event(), []

    def write_late(*args: Any) -> None:
        assert waited_for.wait(20)
        write(*args)

    def waiting(self: Background) -> None:
        waited_for.set()
        wait(self)
        waited_for.clear()

    def saving(self: AtomicCheckpointIO, checkpoint: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        tables = tmp_path / "run" / "diagnostics" / "norm_histograms"  # the last one to be written
        complete.append((tables / f"step_{checkpoint['global_step']:08d}.parquet").exists())
        save(self, checkpoint, *args, **kwargs)

    monkeypatch.setattr(run_diagnostics, "_write", write_late)
    monkeypatch.setattr(Background, "wait", waiting)
    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", saving)
    fit(tmp_path / "run", *EVERY_STEP).succeeded()
    assert complete == [True] * 3


def test_a_table_that_cannot_be_written_later_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = RunDiagnostics.on_measured

    def blocked(self: RunDiagnostics, trainer: Any, step: int) -> None:
        if step == 2:
            (tmp_path / "run" / "diagnostics" / "step_00000002.parquet").mkdir()
        original(self, trainer, step)

    monkeypatch.setattr(RunDiagnostics, "on_measured", blocked)
    outcome = fit(tmp_path / "run", *EVERY_STEP, "--trainer.enable_progress_bar=false")
    assert_refused(outcome, "step_00000002.parquet cannot be written")
    assert not (tmp_path / "run" / "DONE").exists()


def test_the_first_exception_is_raised_once_and_later_tasks_still_run() -> None:
    background, done = Background("test"), []

    def fail(number: int) -> None:
        raise ValueError(number)

    background.submit(lambda: fail(1))
    background.submit(lambda: fail(2))
    background.submit(lambda: done.append(3))
    with pytest.raises(ValueError, match="1"):
        background.wait()
    background.wait()
    background.submit(lambda: done.append(4))
    background.wait()
    assert done == [3, 4]
    assert not background.busy
