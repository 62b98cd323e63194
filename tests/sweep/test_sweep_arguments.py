"""Arguments of `sweep`, and the argument `--sweep` of `fit`."""

import os
from pathlib import Path

import pytest
from running import ROOT, assert_refused, fit, run
from sweeping import content, root_of, sweep, written

ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "an empty directory": (("plan", "--out", ""), "out=''"),
    "a line break in the directory": (("plan", "--out", "a\nb"), "out='a\\nb'"),
    "a long directory": (("status", "--out", "x" * 300), "name too long"),
    "an unknown format": (("status", "--format", "xml"), "format"),
    "jobs as a word": (("run", "--jobs", "many"), "jobs=many"),
    "an empty path of a table": (("collect", "--results", ""), "results=: must end with"),
    "an unknown option": (("plan", "--nothing", "1"), "--nothing"),
}


@pytest.mark.parametrize(("args", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_a_wrong_argument_is_refused_in_one_line(
    args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, content())
    assert_refused(run("sweep", args[0], path, *args[1:]), message)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["../..", "a/b", "", "a b", ".", "x" * 101, "-x"])
def test_fit_refuses_an_invalid_name_of_a_sweep(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_refused(fit(tmp_path / "run", f"--sweep={name}"), "error: sweep")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("limit", "counts"), [(3, [3, 1]), (2, [2, 2]), (1001, [4])])
def test_arrays_are_split_at_the_limit_of_slurm(
    limit: int, counts: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho 'MaxArraySize            = {limit}'\n")
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


@pytest.mark.parametrize(("names", "number"), [((), 0), (("sweep-0.yaml",), 1), (("cells-0.txt", "sweep-4.yaml"), 5)])
def test_submit_replaces_no_list_of_cells_and_no_copy_of_a_sweep_file(
    names: tuple[str, ...], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = written(tmp_path, content())
    root_of(path).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root_of(path) / name).write_text("from elsewhere")
    assert f"cells-{number}.txt" in sweep("submit", path, "--dry_run").succeeded().out
