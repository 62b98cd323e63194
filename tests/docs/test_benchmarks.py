"""Every benchmark can be imported and is listed in the README; benchmarks are run by hand."""

import importlib
import math
import runpy
import shlex
import subprocess
import sys
from typing import Any

import pytest
import torch
from forking import environment
from running import ROOT

FILES = sorted((ROOT / "benchmarks").glob("*.py"))
NAMES = [path.stem for path in FILES if "__main__" in path.read_text()]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported_and_is_listed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    importlib.import_module(f"benchmarks.{name}")
    assert f"python -m benchmarks.{name}" in (ROOT / "benchmarks" / "README.md").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_help_of_a_benchmark_describes_it_and_measures_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ROOT / "benchmarks" / f"{name}.py"
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert path.read_text().splitlines()[0].strip('"') in capsys.readouterr().out


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `benchmarks.gpu`."""
    monkeypatch.syspath_prepend(ROOT)
    return importlib.import_module("benchmarks.gpu")


def test_the_readme_names_rows_that_exist(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text()
    section = text.partition("## Speed on a GPU since")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.endswith("` |")]
    words = [word for line in lines[1:] for word in shlex.split(line.split("`")[-2]) if word != "--only"]
    assert len(words) > 20
    for word in words:
        assert gpu.main(["--list", "--only", word]) == 0, word


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_the_table_needs_a_gpu_or_toy_sizes(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert capsys.readouterr().err == "error: there is no GPU; --tiny runs every row at toy sizes on a CPU\n"


def test_rows_that_do_not_exist_are_refused(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--only", "nothing"]) == 2
    assert capsys.readouterr().err == "error: --only: no row begins with these words; --list prints the names\n"


def test_rows_that_do_not_fit_the_budget_are_listed(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main(["--tiny", "--budget", "0", "--only", "checkpoint", "mechanism/sink"]) == 0
    assert (
        "Not measured within 0 s: python -m benchmarks.gpu --only 'mechanism/sink zero' 'mechanism/sink learned' "
        "'mechanism/sink kv_bias' 'checkpoint'\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("error", [RuntimeError("out of memory\nfurther explanations"), SystemExit(1)], ids=repr)
def test_a_row_that_fails_does_not_stop_the_others(
    error: BaseException, gpu: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise error

    spread = gpu.Line(
        "works", "2.00 ms", importlib.import_module("benchmarks.interleave").Spread(0.9, 1.0, 1.25), "1.05"
    )
    assert not gpu.measure([gpu.Row("one", 1, fails), gpu.Row("two", 1, lambda: iter([spread]))], math.inf, 0.0)
    out = capsys.readouterr().out
    assert "| works | 2.00 ms | **1.000** (0.900 to 1.250) | 1.05 |\n" in out
    first_line = str(error).splitlines()[0]
    assert out.endswith(f"Failed: one: {type(error).__name__}: {first_line}\n")


def test_rows_run_at_toy_sizes(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ("diagnose", "mechanism/gate headwise", "diagnostics", "checkpoint")
    assert gpu.main(["--tiny", "--only", *chosen]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + len(chosen) + torch.cuda.is_available()


@pytest.mark.heavy
def test_every_row_runs_at_toy_sizes() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--tiny"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Failed" not in done.stdout
    assert sum(line.startswith("| ") for line in done.stdout.splitlines()) > 40
