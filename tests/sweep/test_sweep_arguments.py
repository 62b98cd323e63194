"""Arguments of `sweep`, and of `fit` within a sweep."""

import os
from pathlib import Path

import pytest
from running import ROOT, fit, run
from sweeping import content, root_of, sweep, written

ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "no directory": (("plan", "--out", ""), "out=''"),
    "a line break in the directory": (("plan", "--out", "a\nb"), "out='a\\nb'"),
    "a long directory": (("status", "--out", "x" * 300), "name too long"),
    "another format": (("status", "--format", "xml"), "format"),
    "jobs as a word": (("run", "--jobs", "many"), "jobs=many"),
    "no table": (("collect", "--results", ""), "results=: must end with"),
    "an unknown option": (("plan", "--nothing", "1"), "--nothing"),
}


@pytest.mark.parametrize(("args", "said"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_wrong_argument_is_one_line(
    args: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, content())
    outcome = run("sweep", args[0], path, *args[1:])
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../..", "a/b", "", "a b", ".", "x" * 101, "-x"])
def test_fit_refuses_a_sweep_that_names_no_directory(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = fit(tmp_path / "run", f"--sweep={name}")
    assert outcome.code == 2
    [line] = outcome.err.splitlines()
    assert line.startswith("error: sweep")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("most", "counts"), [(3, [3, 1]), (2, [2, 2]), (1001, [4])])
def test_an_array_is_cut_where_slurm_takes_no_more(
    most: int, counts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho 'MaxArraySize            = {most}'\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    lines = sweep("submit", path, "--dry_run").succeeded().out.splitlines()
    arrays = [line for line in lines if line.startswith("sbatch")]
    assert len(arrays) == len(counts)
    for number, (line, count) in enumerate(zip(arrays, counts, strict=True)):
        assert f"--array=0-{count - 1} " in line
        assert line.split()[-3:-1] == [str(count), str(root_of(path) / f"cells-{number}.txt")]
    assert len(lines) - len(arrays) == 4
