"""Two runners share the cells of a sweep, and an interrupted sweep gives the same results as an uninterrupted one."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from forking import Command
from running import started, until
from sweeping import content, opened, root_of, same_weights, spawned, trained_once, weights, written

from sinkablate.sweep.state import State, states

LONG = ("--trainer.limit_train_batches=60", "--checkpoint.every_n_train_steps=10", "--trainer.max_epochs=2")
TWO = {"seed_everything": {"values": [0, 1]}}


def start_sweep(path: Path, *args: str) -> Command:
    """Start `sweep run` in a separate process."""
    return started("sweep", "run", path, "--out", root_of(path), *args)


def checkpoints(path: Path) -> list[Path]:
    """Checkpoints of all cells of a sweep file."""
    return [file for file in root_of(path).glob("*/checkpoints/*.ckpt") if not file.is_symlink()]


@pytest.mark.heavy
def test_two_runners_share_the_cells(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    with start_sweep(path, "--jobs", "1") as one, start_sweep(path, "--jobs", "2", "--in_process") as other:
        assert [one.wait(), other.wait()] == [0, 0], (one.output(), other.output())
    assert len(list(root_of(path).glob("*/DONE"))) == 4
    assert trained_once(root_of(path))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a sweep file whose two longer cells were trained without interruption, each in its own process."""
    path = written(tmp_path_factory.mktemp("uninterrupted"), content(TWO, *LONG))
    spawned("run", path, "--jobs", "1").succeeded()
    return path


def kill_runner(process: Command, path: Path) -> None:
    """Kill the process that starts cells."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    current = states(opened(path).cells, root_of(path))
    assert State.RUNNING in current.values()  # the cell continues without the runner and keeps its claim


def kill_cell(process: Command, path: Path) -> None:
    """Kill the process of a cell."""
    pattern = f"sinkablate fit .*{root_of(path)}"
    [pid, *_] = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert process.wait() == 0, process.output()
    assert "2 done" in process.output()[0]  # started again by the runner


def interrupt(process: Command, path: Path) -> None:
    """Interrupt the sweep as with Ctrl-C."""
    process.send_signal(signal.SIGINT)
    code, output = process.wait(), "".join(process.output())
    assert code == 130, output
    assert "the same command resumes" in output
    assert "1 preempted" in output
    assert not list(root_of(path).glob("*/FAILED"))


EVENTS: dict[str, tuple[Callable[[Command, Path], None], tuple[str, ...]]] = {
    "SIGKILL to the runner": (kill_runner, ()),
    "SIGKILL to a cell": (kill_cell, ()),
    "Ctrl-C": (interrupt, ()),
    "Ctrl-C in one process": (interrupt, ("--in_process",)),
}


@pytest.mark.heavy
@pytest.mark.parametrize(("event", "args"), EVENTS.values(), ids=EVENTS)
def test_an_interrupted_sweep_gives_identical_results(
    event: Callable[[Command, Path], None], args: tuple[str, ...], uninterrupted: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, content(TWO, *LONG))
    with start_sweep(path, "--jobs", "1", *args) as process:
        until(lambda: checkpoints(path), process)
        event(process, path)
    outcome = spawned("run", path, "--jobs", "1").succeeded()
    assert "2 done" in outcome.out
    for cell in opened(path).cells:
        assert same_weights(root_of(path) / cell.id, root_of(uninterrupted) / cell.id)
        assert weights(root_of(path) / cell.id)
    assert trained_once(root_of(path))
