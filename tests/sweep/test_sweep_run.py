"""Cells are trained once each, whatever happens to them and to who trains them, and end as a plain `fit` would."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from forking import Command
from running import run, started, until
from sweeping import content, opened, root_of, same_weights, spawned, sweep, weights, written

from sinkablate.sweep.state import State, claimed, state_of, states

LONG = ("--trainer.limit_train_batches=60", "--checkpoint.every_n_train_steps=10", "--trainer.max_epochs=2")
TWO = {"seed_everything": {"values": [0, 1]}}


def once(root: Path) -> bool:
    """Every log tells of one training that ended."""
    return all(log.read_text().count("run directory:") == 1 for log in root.glob("*/log.txt"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cells, trained in this process; to be read."""
    path = written(tmp_path_factory.mktemp("swept"), content())
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    return path


def test_cells_end_as_a_plain_fit_does(swept: Path, tmp_path: Path) -> None:
    for cell in opened(swept).cells[1:3]:
        run("fit", *cell.words, "--run_dir", tmp_path / cell.id).succeeded()
        assert same_weights(tmp_path / cell.id, root_of(swept) / cell.id)
    summary = json.loads((root_of(swept) / cell.id / "summary.json").read_text())
    assert summary["name"] == "vit_mini-registers=2-s0"


def test_nothing_runs_twice(swept: Path) -> None:
    root = root_of(swept)
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/summary.json")}
    outcome = sweep("run", swept, "--in_process", "--jobs", "1").succeeded()
    assert "4 done" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/summary.json")} == before
    assert len(before) == 4
    assert once(root)


def test_a_value_more_trains_its_cells_alone(swept: Path, tmp_path: Path) -> None:
    more = content({"model.backbone.registers": {"values": [2]}, "seed_everything": {"values": [1, 5]}})
    path = written(tmp_path, more)
    done = {cell.id for cell in opened(swept).cells}
    left = states(opened(path).cells, root_of(swept))
    assert [state for key, state in left.items() if key in done] == [State.DONE]
    assert [state for key, state in left.items() if key not in done] == [State.TODO]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_results_are_one_tidy_table(suffix: str, swept: Path, tmp_path: Path) -> None:
    path = tmp_path / f"results.{suffix}"
    sweep("collect", swept, "--results", str(path)).succeeded()
    table = pl.read_csv(path) if suffix == "csv" else pl.read_parquet(path)
    assert table.columns[:7] == ["run", "cell", "run_dir", "status", "registers", "seed", "diverged"]
    assert not {"counts", "first_block"} & set(table.columns)  # which a summary nests
    assert table["registers"].to_list() == [0, 0, 2, 2]
    assert table["seed"].to_list() == [0, 1, 0, 1]
    for row in table.to_dicts():
        summary = json.loads((root_of(swept) / row["cell"] / "summary.json").read_text())
        assert row["val/acc1"] == summary["val/acc1"]
        assert row["run"] == summary["name"]


def test_status_and_collection_of_a_sweep_in_every_state(swept: Path, tmp_path: Path) -> None:
    path = written(tmp_path, content({"seed_everything": {"values": [0, 1, 2, 3, 4]}}))
    done, failed, running, preempted, todo = (root_of(path) / cell.id for cell in opened(path).cells)
    for run_dir in (done, failed, running, preempted):
        run_dir.mkdir(parents=True)
    for name in ("DONE", "summary.json"):
        (done / name).write_text('{"val/acc1": 0.5}')
    (failed / "FAILED").write_text("exit code 2: error: no such data\n")
    (preempted / "PREEMPTED").touch()
    with claimed(running) as claim:
        assert claim is not None
        shown = json.loads(sweep("status", path, "--format", "json").succeeded().out)
        assert [cell["state"] for cell in shown] == ["done", "failed", "running", "preempted", "todo"]
        assert shown[1]["words"] == "exit code 2: error: no such data"
        assert "1 todo, 1 running, 1 preempted, 1 failed, 1 done" in sweep("status", path).succeeded().out
        with claimed(running) as second:
            assert second is None
    assert state_of(running) is State.TODO
    sweep("collect", path).succeeded()
    table = pl.read_csv(root_of(path) / "results.csv")
    assert table["status"].to_list() == ["done", "failed", "todo", "preempted", "todo"]
    assert table["val/acc1"].to_list() == [0.5, None, None, None, None]
    assert sweep("retry", path).succeeded().out.startswith("reset: ")
    assert state_of(failed) is State.TODO
    assert not todo.exists()


def test_a_cell_that_fails_stops_no_other_and_is_told_of(tmp_path: Path) -> None:
    path = written(tmp_path, content({"model.optim.lr": {"values": [1e30, 3e-3]}, "seed_everything": {"value": 0}}))
    outcome = sweep("run", path, "--in_process", "--jobs", "1")
    assert outcome.code == 1
    assert "1 failed, 1 done" in outcome.out
    failed, done = json.loads(sweep("status", path, "--format", "json").succeeded().out)
    assert (failed["state"], done["state"]) == ("failed", "done")
    assert "the loss is" in failed["words"]
    sweep("collect", path).succeeded()
    table = pl.read_csv(root_of(path) / "results.csv")
    assert table["diverged"].to_list() == [True, False]
    assert sweep("run", path, "--in_process", "--jobs", "1").code == 1  # without a retry it is left alone
    sweep("retry", path).succeeded()
    assert states(opened(path).cells, root_of(path))[failed["id"]] is State.TODO
    sweep("collect", path).succeeded()
    assert pl.read_csv(root_of(path) / "results.csv")["diverged"].to_list() == [False, False]


def test_a_config_that_changes_under_a_sweep_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {optim: {lr: 3e-3}}\n")
    made = content({"seed_everything": {"values": [0]}}, "--config", str(config))
    path = written(tmp_path, made)
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    config.write_text("# the same\nmodel:\n  optim:\n    lr: 3e-3\n")
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    config.write_text("model: {optim: {lr: 5e-3}}\n")
    more = written(tmp_path, made | {"parameters": {"seed_everything": {"values": [0, 1]}}})
    for command in ("plan", "run"):
        refused = sweep(command, more)
        assert (refused.code, f"{config}: has changed since cells" in refused.err) == (2, True)
    other = written(tmp_path, made | {"parameters": {"seed_everything": {"values": [1]}}})  # none that has begun
    sweep("plan", other).succeeded()


def test_a_message_is_cut_before_a_cells_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    path = written(tmp_path, content({"seed_everything": {"values": [0, 1]}}))
    cell = opened(path).cells[1]
    (root_of(path) / cell.id).mkdir(parents=True)
    (root_of(path) / cell.id / "FAILED").write_text(f"exit code 2: error: {'long ' * 80}\n")
    said = sweep("plan", path).succeeded().out
    assert re.search(rf"^ *{cell.id} +{re.escape(cell.label)} +failed +exit code 2", said, re.MULTILINE)
    assert max(map(len, said.splitlines())) <= 70


def test_a_table_of_somebody_else_is_not_replaced(swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.csv"
    other.write_text("mine\n1\n")
    refused = sweep("collect", swept, "--results", str(other))
    assert (refused.code, other.read_text()) == (2, "mine\n1\n")
    sweep("collect", swept, "--results", str(other), "--overwrite").succeeded()
    assert len(pl.read_csv(other)) == 4


def test_nothing_to_collect_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    assert "no cell of this sweep has run" in sweep("collect", path).err
    assert "must end with .csv or .parquet" in sweep("collect", path, "--results", "x.txt").err


@pytest.mark.parametrize(("args", "said"), [(("--jobs", "0"), "jobs"), (("--restarts", "-1"), "restarts")])
def test_wrong_numbers_are_refused(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    outcome = sweep("run", written(tmp_path, content()), *args)
    assert outcome.code == 2
    assert f"error: {said}" in outcome.err


def begun(path: Path, *args: str) -> Command:
    """`sweep run` as a process."""
    return started("sweep", "run", path, "--out", root_of(path), *args)


def checkpoints(path: Path) -> list[Path]:
    return [file for file in root_of(path).glob("*/checkpoints/*.ckpt") if not file.is_symlink()]


@pytest.mark.heavy
def test_two_runners_share_the_cells(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    with begun(path, "--jobs", "1") as one, begun(path, "--jobs", "2", "--in_process") as other:
        assert [one.wait(), other.wait()] == [0, 0], (one.output(), other.output())
    assert len(list(root_of(path).glob("*/DONE"))) == 4
    assert once(root_of(path))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two longer cells that nothing happens to, each in a process of its own."""
    path = written(tmp_path_factory.mktemp("uninterrupted"), content(TWO, *LONG))
    spawned("run", path, "--jobs", "1").succeeded()
    return path


def kill_runner(process: Command, path: Path) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    now = states(opened(path).cells, root_of(path))
    assert State.RUNNING in now.values()  # the cell goes on by itself, and its claim with it


def kill_cell(process: Command, path: Path) -> None:
    pattern = f"sinkablate fit .*{root_of(path)}"
    [pid, *_] = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert process.wait() == 0, process.output()
    assert "2 done" in process.output()[0]  # started again by the runner


def interrupt(process: Command, path: Path) -> None:
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
@pytest.mark.parametrize(("event", "how"), EVENTS.values(), ids=EVENTS)
def test_a_disturbed_sweep_ends_as_an_undisturbed_one(
    event: Callable[[Command, Path], None], how: tuple[str, ...], uninterrupted: Path, tmp_path: Path
) -> None:
    path = written(tmp_path, content(TWO, *LONG))
    with begun(path, "--jobs", "1", *how) as process:
        until(lambda: checkpoints(path), process)
        event(process, path)
    outcome = spawned("run", path, "--jobs", "1").succeeded()
    assert "2 done" in outcome.out
    for cell in opened(path).cells:
        assert same_weights(root_of(path) / cell.id, root_of(uninterrupted) / cell.id)
        assert weights(root_of(path) / cell.id)
    assert once(root_of(path))
