"""Every cell of a sweep is trained once, with the same result as a plain `fit`; its results are collected."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from running import run
from sweeping import content, opened, root_of, same_weights, sweep, trained_once, written

from sinkablate.sweep.state import State, claimed, state_of, states


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a sweep file whose four cells have been trained; tests must not change them."""
    path = written(tmp_path_factory.mktemp("swept"), content())
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    return path


def test_a_cell_gives_the_same_result_as_a_plain_fit(swept: Path, tmp_path: Path) -> None:
    for cell in opened(swept).cells[1:3]:
        run("fit", *cell.words, "--run_dir", tmp_path / cell.id).succeeded()
        assert same_weights(tmp_path / cell.id, root_of(swept) / cell.id)
    summary = json.loads((root_of(swept) / cell.id / "summary.json").read_text())
    assert summary["name"] == "vit_mini-registers=2-s0"


def test_finished_cells_are_not_trained_again(swept: Path) -> None:
    root = root_of(swept)
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/summary.json")}
    outcome = sweep("run", swept, "--in_process", "--jobs", "1").succeeded()
    assert "4 done" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in root.glob("*/summary.json")} == before
    assert len(before) == 4
    assert trained_once(root)


def test_an_additional_value_leaves_finished_cells_done(swept: Path, tmp_path: Path) -> None:
    extended = content({"model.backbone.registers": {"values": [2]}, "seed_everything": {"values": [1, 5]}})
    path = written(tmp_path, extended)
    done = {cell.id for cell in opened(swept).cells}
    current = states(opened(path).cells, root_of(swept))
    assert [state for key, state in current.items() if key in done] == [State.DONE]
    assert [state for key, state in current.items() if key not in done] == [State.TODO]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_collect_writes_one_row_per_cell(suffix: str, swept: Path, tmp_path: Path) -> None:
    path = tmp_path / f"results.{suffix}"
    sweep("collect", swept, "--results", str(path)).succeeded()
    table = pl.read_csv(path) if suffix == "csv" else pl.read_parquet(path)
    assert table.columns[:7] == ["run", "cell", "run_dir", "status", "registers", "seed", "diverged"]
    assert not {"counts", "first_block"} & set(table.columns)  # nested in a summary
    assert table["registers"].to_list() == [0, 0, 2, 2]
    assert table["seed"].to_list() == [0, 1, 0, 1]
    for row in table.to_dicts():
        summary = json.loads((root_of(swept) / row["cell"] / "summary.json").read_text())
        assert row["val/acc1"] == summary["val/acc1"]
        assert row["run"] == summary["name"]


def test_status_and_collect_with_cells_in_every_state(swept: Path, tmp_path: Path) -> None:
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
        cells = json.loads(sweep("status", path, "--format", "json").succeeded().out)
        assert [cell["state"] for cell in cells] == ["done", "failed", "running", "preempted", "todo"]
        assert cells[1]["words"] == "exit code 2: error: no such data"
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


def test_a_failed_cell_is_reported_and_does_not_stop_the_others(tmp_path: Path) -> None:
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
    assert sweep("run", path, "--in_process", "--jobs", "1").code == 1  # failed cells are only repeated after `retry`
    sweep("retry", path).succeeded()
    assert states(opened(path).cells, root_of(path))[failed["id"]] is State.TODO
    sweep("collect", path).succeeded()
    assert pl.read_csv(root_of(path) / "results.csv")["diverged"].to_list() == [False, False]


def test_a_config_that_has_changed_since_the_first_cell_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("model: {optim: {lr: 3e-3}}\n")
    sweep_content = content({"seed_everything": {"values": [0]}}, "--config", str(config))
    path = written(tmp_path, sweep_content)
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    config.write_text("# the same\nmodel:\n  optim:\n    lr: 3e-3\n")
    sweep("run", path, "--in_process", "--jobs", "1").succeeded()
    config.write_text("model: {optim: {lr: 5e-3}}\n")
    extended = written(tmp_path, sweep_content | {"parameters": {"seed_everything": {"values": [0, 1]}}})
    for command in ("plan", "run"):
        outcome = sweep(command, extended)
        assert (outcome.code, f"{config}: has changed since cells" in outcome.err) == (2, True)
    # none of these cells has started with the earlier config
    other = written(tmp_path, sweep_content | {"parameters": {"seed_everything": {"values": [1]}}})
    sweep("plan", other).succeeded()


def test_a_narrow_terminal_truncates_messages_not_cell_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    path = written(tmp_path, content({"seed_everything": {"values": [0, 1]}}))
    cell = opened(path).cells[1]
    (root_of(path) / cell.id).mkdir(parents=True)
    (root_of(path) / cell.id / "FAILED").write_text(f"exit code 2: error: {'long ' * 80}\n")
    text = sweep("plan", path).succeeded().out
    assert re.search(rf"^ *{cell.id} +{re.escape(cell.label)} +failed +exit code 2", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 70


def test_an_unrelated_table_is_not_replaced(swept: Path, tmp_path: Path) -> None:
    other = tmp_path / "results.csv"
    other.write_text("mine\n1\n")
    for args in ((), ("--overwrite",)):
        outcome = sweep("collect", swept, "--results", str(other), *args)
        assert (outcome.code, other.read_text()) == (2, "mine\n1\n")
    other.unlink()
    for args in ((), ("--overwrite",)):
        sweep("collect", swept, "--results", str(other), *args).succeeded()
        assert len(pl.read_csv(other)) == 4


def test_collect_without_results_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, content())
    assert "no cell of this sweep has run" in sweep("collect", path).err
    assert "must end with .csv or .parquet" in sweep("collect", path, "--results", "x.txt").err


@pytest.mark.parametrize(("args", "message"), [(("--jobs", "0"), "jobs"), (("--restarts", "-1"), "restarts")])
def test_wrong_numbers_are_refused(args: tuple[str, ...], message: str, tmp_path: Path) -> None:
    outcome = sweep("run", written(tmp_path, content()), *args)
    assert outcome.code == 2
    assert f"error: {message}" in outcome.err


def test_collect_adds_the_sensitivity_to_the_learning_rate(tmp_path: Path) -> None:
    rates, seeds = {"values": [0.001, 0.003, 0.01]}, {"values": [0, 1]}
    path = written(tmp_path, content({"model.optim.lr": rates, "seed_everything": seeds}))
    losses = {(0.001, 0): 0.5, (0.003, 0): 0.2, (0.01, 0): 0.8, (0.001, 1): 0.1, (0.003, 1): 0.3}
    for cell in opened(path).cells:
        loss = losses.get((float(cell.factors["model.optim.lr"]), int(cell.factors["seed_everything"])))
        run_dir = root_of(path) / cell.id
        run_dir.mkdir(parents=True)
        (run_dir / "DONE").touch()
        (run_dir / "summary.json").write_text(json.dumps({"val/loss": loss}))
    sweep("collect", path).succeeded()
    table = pl.read_csv(root_of(path) / "results.csv")
    assert table.filter(seed=0)["stability/lr_sensitivity"].to_list() == [pytest.approx(0.5 - 0.2)] * 3
    assert table.filter(seed=1)["stability/lr_sensitivity"].to_list() == [None] * 3  # one of its rates has no loss
