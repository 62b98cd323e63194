"""Files and directories that cannot be written are named in one line, with exit code 2."""

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import CONFIGS, assert_refused, fit, run, tree

from sinkablate.callbacks.run_diagnostics import RunDiagnostics
from sinkablate.cli import lightning


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_a_run_directory_that_cannot_be_written_is_named(
    command: str, below: str, paths: dict[str, Path], empty_folder: Path
) -> None:
    (empty_folder / "file").write_text("in the way")
    last = paths["run"] / "checkpoints" / "last.ckpt"
    outcome = run(
        command,
        "--config",
        paths["run"] / "config.yaml",
        "--run_dir",
        empty_folder / "file" / below,
        *(() if command == "fit" else ("--ckpt_path", last)),
    )
    assert_refused(outcome, f"run_dir={empty_folder / 'file'}")
    assert tree(empty_folder).keys() == {"file"}


@pytest.fixture
def full_disk() -> Iterator[Callable[[int], None]]:
    """A function that limits the size of every file that is written, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    ("owner", "function", "name"),
    [(RunDiagnostics, "on_measured", "diagnostics/step_00000000.parquet"), (lightning, "finish_run", "summary.json")],
)
def test_a_full_disk_is_reported_in_one_line_that_names_the_file(
    owner: Any,
    function: str,
    name: str,
    tmp_path: Path,
    full_disk: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = getattr(owner, function)

    def on_full_disk(*args: Any) -> None:
        full_disk(16)
        original(*args)

    monkeypatch.setattr(owner, function, on_full_disk)
    outcome = fit(tmp_path / "run", "--trainer.limit_val_batches=0", "--trainer.limit_train_batches=1")
    assert_refused(outcome, "cannot be written: File too large")
    assert name in outcome.err
    assert not (tmp_path / "run" / "DONE").exists()


@pytest.mark.parametrize(
    ("command", "name"), [("validate", "validate.json"), ("test", "test.json"), ("predict", "predictions.parquet")]
)
def test_a_result_file_that_cannot_be_written_is_named(command: str, name: str, finished: Path, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()  # in the way
    outcome = run(
        command,
        "--config",
        CONFIGS / "gate_reg.yaml",
        "--run_dir",
        tmp_path,
        "--data.eval_batch_size=256",
        "--ckpt_path",
        finished / "checkpoints" / "last.ckpt",
        "--trainer.enable_progress_bar=false",
        f"--trainer.limit_{'val' if command == 'validate' else command}_batches=1",
    )
    assert outcome.code == 2
    assert f"{name} cannot be written" in outcome.err.splitlines()[-1]
    assert tree(tmp_path) == {}
