"""A report shows what evaluations measured, and no numbers that cannot be compared."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from reporting import EVALUATED, report
from running import assert_refused

from sinkablate.report.events import events_per_image
from sinkablate.report.quality import quality, without_mixed_protocols
from sinkablate.report.reading import read_run
from sinkablate.report.run import scalar_metrics


def evaluation(run_dir: Path) -> Path:
    return run_dir / "evaluation" / "evaluation.json"


@pytest.mark.slow
def test_the_figure_and_the_table_hold_the_numbers_of_the_evaluations(ablated: Path, reported: Path) -> None:
    figure = pl.read_csv(reported / "figures" / "quality.csv")
    assert figure["run"].to_list() == list(EVALUATED)
    assert set(figure["metric"]) == {"knn/acc1"}
    accuracies: dict[str, list[float]] = {}
    for row in figure.to_dicts():
        stored = json.loads(evaluation(ablated / "runs" / row["run"]).read_text())
        assert row["value"] == stored["knn/acc1"]
        run = read_run(ablated / "runs" / row["run"])
        assert row["events"] == pytest.approx(events_per_image(run, "causal"))
        accuracies.setdefault(row["variant"], []).append(row["value"])
    table = (reported / "tables" / "quality.md").read_text()
    assert "| gate | registers | sink events per image | val/acc1 | knn/acc1 |" in table
    for gate, variant in (("none", "baseline"), ("headwise", "gate")):
        (line,) = (line for line in table.splitlines() if line.startswith(f"| {gate} | none |"))
        mean, spread = line.rstrip("*| ").rpartition("| ")[2].split(" ± ")
        assert float(mean) == pytest.approx(np.mean(accuracies[variant]), abs=5e-3)
        assert float(spread) == pytest.approx(np.std(accuracies[variant], ddof=1), abs=5e-3)


@pytest.mark.slow
def test_numbers_that_the_baseline_lacks_are_named(ablated: Path, tmp_path: Path) -> None:
    for name in ("baseline-s0", "gate-s0"):
        shutil.copytree(ablated / "runs" / name, tmp_path / "runs" / name)
    shutil.rmtree(tmp_path / "runs" / "baseline-s0" / "evaluation")
    outcome = report(tmp_path / "out", tmp_path / "runs", "--maps", "0").succeeded()
    assert "The table of all metrics leaves out knn/acc1, " in outcome.err


@pytest.mark.slow
def test_numbers_of_different_protocols_are_left_out_or_refused(ablated: Path, tmp_path: Path) -> None:
    for name in EVALUATED[::2]:
        shutil.copytree(ablated / "runs" / name, tmp_path / "runs" / name)
    path = evaluation(tmp_path / "runs" / EVALUATED[0])
    path.write_text(json.dumps(json.loads(path.read_text()) | {"protocols": {"knn": "patch k=5"}}))
    runs = [read_run(tmp_path / "runs" / name) for name in EVALUATED[::2]]
    assert quality(runs, "causal") is not None
    kept, (note,) = without_mixed_protocols(runs)
    assert note.startswith("The numbers of knn are left out: they were measured by different protocols (patch k=5; ")
    assert quality(kept, "causal") is None
    assert [name for run in kept for name in scalar_metrics(run) if name.startswith("knn/")] == []
    outcome = report(tmp_path / "out", tmp_path / "runs", "--maps", "0", "--metric", "knn/acc1")
    assert_refused(outcome, "metric=knn/acc1: measured by different protocols")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_of_another_run_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = evaluation(tmp_path / "run")
    path.parent.mkdir()
    path.write_text(json.dumps({"tasks": {"knn": {}}, "protocols": {"knn": "cls k=5"}, "run_id": "0", "knn/acc1": 0.5}))
    assert_refused(report(tmp_path / "out", tmp_path / "run"), f"{path}: belongs to another run")
