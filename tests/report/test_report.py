"""`report` on real runs: the files it writes, the data it shows, and the input it refuses."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from reporting import FIGURES, VARIANTS, report
from running import run, tree


def page_data(out: Path) -> dict:  # type: ignore[type-arg]
    """Return the data that the scripts of the page read."""
    (text,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', (out / "index.html").read_text(), re.DOTALL
    )
    return json.loads(text)


@pytest.mark.slow
def test_a_report_holds_every_panel_with_its_data(ablated: Path, reported: Path) -> None:
    assert {path.name for path in (reported / "figures").iterdir()} == {
        f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png", "csv")
    }
    assert all(len(pl.read_csv(path)) for path in (reported / "figures").glob("*.csv"))
    assert {path.name for path in (reported / "tables").iterdir()} == {
        f"{name}.{kind}" for name in ("runs", "labels_by_type", "ablation", "quality") for kind in ("md", "tex")
    }
    assert json.loads((reported / "report.json").read_text())["missing"] == {}
    assert [one["name"] for one in page_data(reported)["runs"]] == sorted(
        f"{variant}-s{seed}" for variant in sorted(VARIANTS) for seed in (0, 1)
    )


@pytest.mark.heavy
def test_the_tables_are_those_of_compare(ablated: Path, reported: Path, tmp_path: Path) -> None:
    """`compare` gives the same tables for the same runs, from a table written here."""
    rows = []
    for variant, (gate, registers) in VARIANTS.items():
        for seed in (0, 1):
            summary = json.loads((ablated / "runs" / f"{variant}-s{seed}" / "summary.json").read_text())
            rows.append({"gate": gate, "registers": registers, "seed": seed, "val/acc1": summary["val/acc1"]})
    pl.DataFrame(rows).sort("gate", "registers").write_csv(tmp_path / "results.csv")
    options = ("--metric", "val/acc1", "--factors", "gate,registers", "--detect", "0.05")
    printed = run("compare", tmp_path / "results.csv", *options, "--format", "markdown").succeeded().out
    assert sorted((reported / "tables" / "ablation.md").read_text().splitlines()) == sorted(printed.splitlines())
    report(
        tmp_path / "from_table", ablated / "runs", "--results", tmp_path / "results.csv", *options, "--maps", "0"
    ).succeeded()
    assert (tmp_path / "from_table" / "tables" / "ablation.md").read_text() == printed


@pytest.mark.slow
def test_what_is_missing_drops_its_panels_with_a_note(ablated: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(ablated / "runs" / "reg-s0", bare, ignore=shutil.ignore_patterns("diagnostics", "checkpoints"))
    outcome = report(tmp_path / "out", bare).succeeded()
    missing = json.loads((tmp_path / "out" / "report.json").read_text())["missing"]
    assert set(missing) == {
        "handoff",
        "frequency",
        "atlas",
        "norms",
        "scatter",
        "quality",
        "labels",
        "sensitivity",
        "edits",
        "token_maps",
        "maps",
        "ablation",
        "effects",
    }
    assert {path.stem for path in (tmp_path / "out" / "figures").iterdir()} == {"stability", "formation"}
    page = (tmp_path / "out" / "index.html").read_text()
    for panel, text in missing.items():
        assert f"panel {panel}: {text}" in outcome.err
        assert page.count('<p class="missing">') == len(missing)


@pytest.mark.heavy
def test_an_unfinished_run_is_shown_marked_and_not_averaged(ablated: Path, tmp_path: Path) -> None:
    shutil.copytree(ablated / "runs", tmp_path / "runs")
    stopped = tmp_path / "runs" / "reg-s1"
    for name in ("DONE", "summary.json"):
        (stopped / name).unlink()
    with (stopped / "metrics.csv").open("ab") as file:
        file.write(b"99,0.1")  # the process was killed while writing
    outcome = report(tmp_path / "out", tmp_path / "runs", "--factors", "gate,registers", "--maps", "0").succeeded()
    assert "reg-s1 has not finished" in outcome.err
    shown = {one["name"]: one for one in page_data(tmp_path / "out")["runs"]}
    assert [name for name, one in shown.items() if one["state"] != "finished"] == ["reg-s1"]
    assert shown["reg-s1"]["metrics"]["val/acc1"] is not None
    cells = {cell["name"]: len(cell["values"]) for cell in page_data(tmp_path / "out")["ablation"]["cells"]}
    assert cells.pop("gate=none, registers=4") == 1
    assert set(cells.values()) == {2}
    assert re.search(r"\| reg-s1 \| reg \| 1 \| unfinished \|", (tmp_path / "out" / "tables" / "runs.md").read_text())


@pytest.mark.slow
def test_a_diverged_run_is_marked_as_diverged(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    (tmp_path / "run" / "checkpoints" / "nonfinite.ckpt").touch()
    outcome = report(tmp_path / "out", tmp_path / "run", "--maps", "0").succeeded()
    assert "run diverged; its data so far are shown" in outcome.err
    assert "has not finished" not in outcome.err


CASES = {
    "no run": (["{tmp}"], ["runs", "neither a run"]),
    "no directory": (["{tmp}/nothing"], ["nothing", "not a directory"]),
    "no runs at all": ([], ["RUNS"]),
    "negative maps": (["{run}", "--maps", "-1"], ["maps", "-1"]),
    "no images": (["{run}", "--images", "0"], ["images", "0"]),
    "unknown factor": (["{run}", "--factors", "gaet"], ["factors", "gaet"]),
    "ambiguous factor": (["{run}", "--factors", "batch_size"], ["data.batch_size, diagnostics"]),
    "unknown metric": (["{run}", "--metric", "val/acc9"], ["val/acc9"]),
    "table alone": (["{run}", "--results", "{tmp}/x.csv"], ["results", "--metric", "--factors"]),
    "no table": (["{run}", "--results", "{tmp}/x.csv", "--metric", "m", "--factors", "f"], ["x.csv"]),
    "baseline": (["{run}", "--baseline", "gate"], ["baseline", "NAME=VALUE"]),
    "unknown option": (["{run}", "--color", "red"], ["--color"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_reported_in_one_line_and_nothing_is_written(case: str, finished: Path, tmp_path: Path) -> None:
    words, expected = CASES[case]
    outcome = report(tmp_path / "out", *(word.format(tmp=tmp_path, run=finished) for word in words))
    _refused(outcome.code, outcome.err, expected)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "evaluated").mkdir()
    (tmp_path / "evaluated" / "evaluation.json").write_text("{}")
    outcome = report(tmp_path / "out", tmp_path / "evaluated")
    _refused(outcome.code, outcome.err, ["evaluated is an evaluation", "evaluate --run RUN", "without --out"])


DAMAGE = {
    "diagnostics/step_00000006.parquet": b"PAR1 not parquet",
    "diagnostics/blocks/step_00000006.parquet": b"",
    "diagnostics/step_00000000.parquet": b"PAR1",
    "summary.json": b"{",
    "config.yaml": b"a: [",
    "metrics.csv": b"x,y\n1,2\n",
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_file_is_named(name: str, finished: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(finished, damaged)
    assert (damaged / name).exists()
    (damaged / name).write_bytes(DAMAGE[name])
    outcome = report(tmp_path / "out", damaged)
    _refused(outcome.code, outcome.err, [name])
    assert not (tmp_path / "out").exists()


def test_a_table_of_something_else_is_named(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    name = "diagnostics/step_00000006.parquet"
    pl.DataFrame({"block": [0], "head": [0]}).write_parquet(tmp_path / "run" / name)
    outcome = report(tmp_path / "out", tmp_path / "run")
    _refused(outcome.code, outcome.err, [name, "the column images is missing"])


def _refused(code: object, err: str, expected: list[str]) -> None:
    assert code == 2
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert all(word in err for word in expected), err


@pytest.mark.slow
def test_only_a_report_is_replaced_and_only_with_overwrite(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = (finished, "--maps", "0")
    out.mkdir()
    (out / "index.html").write_text("mine")
    _refused((first := report(out, *quick, "--overwrite")).code, first.err, ["out", "is not a report"])
    (out / "index.html").rename(out / "thesis.tex")
    report(out, *quick).succeeded()
    (out / "figures" / "handoff.png").write_text("old")
    (out / "notes.txt").write_text("mine")
    before = tree(out)
    _refused((second := report(out, *quick)).code, second.err, ["holds a report", "--overwrite true"])
    assert tree(out) == before
    report(out, *quick, "--overwrite", "true").succeeded()
    assert (out / "figures" / "handoff.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "notes.txt").read_text() == (out / "thesis.tex").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_without_maps_no_framework_is_imported(finished: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from sinkablate.__main__ import main; "
        f"main(['report', '{finished}', '--out', '{tmp_path / 'out'}', '--maps', '0']); "
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    assert (tmp_path / "out" / "index.html").exists()
    assert not {name.split(".")[0] for name in done.stderr.split()} & {"torch", "lightning", "timm", "wandb"}


def test_the_maps_are_of_the_busiest_heads_of_the_rule_that_the_page_shows_first(
    finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "run", symlinks=True)
    table = max((tmp_path / "run" / "diagnostics").glob("step_*.parquet"))
    heads = pl.read_parquet(table)
    order = pl.int_range(pl.len()) / pl.len()
    heads.with_columns(adaptive_frequency=order, causal_frequency=1 - order).write_parquet(table)
    report(tmp_path / "out", tmp_path / "run", "--maps", "1", "--images", "1", "--rule", "causal").succeeded()
    maps = page_data(tmp_path / "out")["runs"][0]["maps"]
    first = heads.select("block", "head").row(0)
    assert [(of_head["block"], of_head["head"]) for of_head in maps["heads"]] == [first]
    assert maps["rule"] == "causal"


def test_a_toy_run_is_reported(tmp_path: Path) -> None:
    quick = ("--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.max_epochs=1")
    run("fit", "--config", "toy/nop", "--run_dir", tmp_path / "toy", "--wandb.mode=disabled", *quick).succeeded()
    report(tmp_path / "out", tmp_path / "toy").succeeded()
    assert "toy" in (tmp_path / "out" / "tables" / "runs.md").read_text(encoding="utf-8")
