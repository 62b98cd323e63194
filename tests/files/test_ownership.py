"""No command replaces or removes files that it did not write, with `--overwrite` or without."""

import json
import shutil
from pathlib import Path

import pytest
from running import CONFIGS, QUICK, run, tree

FIT = ("fit", *QUICK, "--run_dir", "{out}")
TABLE = "runs.csv"
"""A table with two cells of two seeds, which `compare` reads."""
SWEEP = "grid.yaml"
COMMANDS = {
    "fit": FIT,
    "fit, resumed": (*FIT, "--ckpt_path=auto"),
    "fit, cell of a sweep": (*FIT, "--sweep=grid"),
    "fit, config of another project": (*FIT, f"--config={CONFIGS / 'gate.yaml'}"),
    "diagnose": ("diagnose", "--run", "{run}", "--limit=2", "--out", "{out}"),
    "evaluate": ("evaluate", "--run", "{run}", "--out", "{out}"),
    "intervene": ("intervene", "--run", "{run}", "--limit=2", "--out", "{out}"),
    "report": ("report", "{run}", "--maps=0", "--out", "{out}"),
    "sweep run": ("sweep", "run", SWEEP, "--in_process", "--out", "{out}"),
}
FOREIGN = {
    "figures": ("figures/thesis.pdf",),
    "checkpoints": ("checkpoints/last.ckpt", "config.yaml"),
    "results": ("summary.json", "metrics.csv", "checked.txt", "configs.json"),
    "markers": ("report.json", "diagnosis.json", "intervention.json", "index.html", "config.yaml", "configs.json"),
}
"""Files of another project. None of the markers has content that sinkablate writes."""
HOLDS = {"fit": ("figures", "checkpoints", "results", "markers"), "sweep run": ("results", "markers")}
"""What the directory holds, by command, unless it is `checkpoints`, `figures` and `markers`."""
CASES = [
    (name, held, overwrite)
    for name in COMMANDS
    for held in HOLDS.get(name, ("figures", "checkpoints", "markers"))
    for overwrite in (False, True)
    if not (overwrite and name == "sweep run")
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a table and a sweep."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / TABLE).write_text("gate,seed,acc\nnone,0,1\nnone,1,2\nheadwise,0,2\nheadwise,1,4\n")
    (tmp_path / SWEEP).write_text(
        "name: grid\nprogram: sinkablate\nmethod: grid\nparameters: {seed_everything: {values: [0]}}\n"
        "command: [python, -m, sinkablate, fit, --sweep, grid, --ckpt_path, auto, '${args}']\n"
    )
    return tmp_path


@pytest.mark.parametrize(("name", "held", "overwrite"), CASES)
def test_foreign_files_are_neither_replaced_nor_removed(
    name: str, held: str, overwrite: bool, place: Path, finished: Path
) -> None:
    out = place / "project"
    for file in FOREIGN[held]:
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text('{"model": "resnet50"}' if file.endswith(".json") else "lr: 1\n")
    before = tree(out)
    words = [word.format(out=out, run=finished) for word in COMMANDS[name]]
    outcome = run(*words, *(["--overwrite"] if overwrite else []))
    assert outcome.code == 2, outcome
    (line,) = outcome.err.splitlines()
    key = "run_dir" if name.startswith("fit") else "out"
    assert line.startswith(f"error: {key}={out}: contains ")
    assert line.endswith(f"; choose another --{key} (nothing was changed)")
    assert tree(out) == before


@pytest.mark.parametrize("command", ["diagnose", "report", "intervene"])
def test_files_under_other_names_are_no_reason_to_refuse(command: str, place: Path, finished: Path) -> None:
    out = place / "project"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    run(*(word.format(out=out, run=finished) for word in COMMANDS[command])).succeeded()
    assert (out / "thesis.txt").read_text() == "mine"


def test_foreign_files_outlive_an_overwritten_run(place: Path) -> None:
    out = place / "project"
    fit = (*(word.format(out=out) for word in FIT), "--diagnostics.every_n_steps=0", "--overwrite")
    (out / "checkpoints").mkdir(parents=True)
    (out / "notes.txt").write_text("mine")
    run(*fit).succeeded()
    others = [out / name for name in ("notes.txt", "figures/paper.pdf", "diagnostics/own/a.csv", "checkpoints/why.md")]
    for path in others:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    stale = out / "checkpoints" / "epoch=7-step=9.ckpt"
    stale.write_bytes(b"")
    run(*fit).succeeded()
    assert [path.read_text() for path in others] == ["mine"] * len(others)
    assert not stale.exists()


@pytest.mark.parametrize(
    ("command", "name"), [("validate", "validate.json"), ("test", "test.json"), ("predict", "predictions.parquet")]
)
def test_foreign_results_are_not_replaced(command: str, name: str, finished: Path, place: Path) -> None:
    (place / name).write_text('{"images": 3}')
    words = ("--config", finished / "config.yaml", "--run_dir", place)
    outcome = run(command, *words, "--ckpt_path", finished / "checkpoints" / "last.ckpt")
    assert f"run_dir={place}: contains {name}, but is not a run" in outcome.err
    assert (place / name).read_text() == '{"images": 3}'


def test_results_without_a_run_may_be_replaced_by_the_same_command(finished: Path, place: Path) -> None:
    shutil.copy(finished / "checkpoints" / "last.ckpt", place / "weights.ckpt")
    words = ("validate", "--config", finished / "config.yaml", "--run_dir", place / "results")
    quick = ("--trainer.limit_val_batches=1", "--data.eval_batch_size=8")
    for _ in range(2):
        run(*words, "--ckpt_path", place / "weights.ckpt", *quick).succeeded()
    assert "val/acc1" in json.loads((place / "results" / "validate.json").read_text())


def test_a_file_is_replaced_only_by_the_command_that_wrote_it(place: Path) -> None:
    compare = ("compare", TABLE, "--metric=acc", "--factors=gate", "--out=table.md", "--overwrite")
    for form in ("table", "markdown", "latex", "json"):
        run(*compare, f"--format={form}").succeeded()
        run(*compare, f"--format={form}").succeeded()
    Path("table.md").write_text("# Thesis\n")
    outcome = run(*compare)
    assert (outcome.code, Path("table.md").read_text()) == (2, "# Thesis\n")
    assert (
        outcome.err == "error: out=table.md: was not written by compare, so it is not replaced; choose another file\n"
    )


def test_the_table_of_a_sweep_replaces_only_such_a_table(place: Path) -> None:
    collect = ("sweep", "collect", SWEEP, "--out", place / "cells")
    (place / "cells").mkdir()
    for words in (collect, (*collect, "--results=table.csv", "--overwrite")):
        path = Path("table.csv") if len(words) > len(collect) else place / "cells" / "results.csv"
        path.write_text("a,b\n1,2\n")
        outcome = run(*words)
        assert f"results={path}: was not written by sweep collect" in outcome.err
        assert path.read_text() == "a,b\n1,2\n"
        path.unlink()
        run(*words).succeeded()
        run(*words).succeeded()
