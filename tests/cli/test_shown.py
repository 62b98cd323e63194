"""What a run shows: a bar on a terminal, rounded scores, and a summary whose first lines answer the first questions."""

import contextlib
import io
import json
import re
import warnings
from pathlib import Path

import pytest
from running import QUICK, fit, quick_fit, run

from sinkablate.__main__ import main
from sinkablate.run.summary_order import sort_summary


class Terminal(io.StringIO):
    """Keeps what is written to it."""

    def isatty(self) -> bool:
        """A terminal, as far as anybody asks."""
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """100 columns wide."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def plain(text: str) -> str:
    """Without the control sequences of colors and cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_a_fit_on_a_terminal_shows_epochs_from_one_with_the_time_left(terminal: Terminal, tmp_path: Path) -> None:
    words = quick_fit(tmp_path / "run", "--trainer.max_epochs=2", "--diagnostics.every_n_steps=0")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(terminal):
        assert main(words) == 0
    shown = plain(terminal.getvalue())
    assert re.search(r"epoch 1/2 .* 0/4", shown)
    assert re.search(r"epoch 2/2 .* 4/4 \d+ images/s  loss \d\.\d{3} \d:\d\d:\d\d left", shown)
    assert "0/?" not in shown
    lines = re.findall(r"epoch [12]/2  [a-z].*", shown)
    assert len(lines) == 2, shown
    assert all(name in lines[1] for name in ("train/loss", "val/acc1", "val/acc5", "val/loss"))
    assert terminal.getvalue().endswith("\x1b[2K")  # nothing is left behind


def test_a_refused_command_leaves_one_line_on_a_terminal(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        assert main(["fit", "--trainer.bogus", "1"]) == 2
    assert terminal.getvalue().startswith("loading PyTorch and Lightning ...\r\r\x1b[2K")
    assert terminal.getvalue().partition("\x1b[2K")[2].count("\n") == 1


def test_lines_in_a_file_tell_the_accuracy_of_each_epoch(tmp_path: Path) -> None:
    said = fit(tmp_path / "run", "--diagnostics.every_n_steps=0").succeeded().out
    assert re.search(r"^epoch 1/1  val/acc1 0\.\d{4}$", said, re.MULTILINE)


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_scores_are_rounded_and_no_library_gives_advice(verb: str, finished: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        said = run(
            verb,
            "--config",
            finished / "config.yaml",
            *QUICK[4:7],
            "--trainer.limit_test_batches=1",
            "--ckpt_path",
            finished / "checkpoints" / "last.ckpt",
            "--run_dir",
            tmp_path / "out",
        ).succeeded()
    assert re.search(r"accuracy +\S +\d+\.\d\d% ", said.out)
    assert not re.search(r"\d\.\d{5}", said.out)
    assert f"{verb}.json" in said.out
    assert "Preemption" not in said.err + " ".join(str(warning.message) for warning in caught)


def test_a_summary_begins_with_what_a_person_looks_for(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    keys = list(summary)
    assert keys[:4] == ["name", "val/acc1", "val/acc5", "val/loss"]
    assert {"sink/events", "images_per_second", "parameters", "steps"} <= set(keys[:25])
    nested = [isinstance(value, dict | list) for value in summary.values()]
    assert nested == sorted(nested)
    assert sort_summary(dict(sorted(summary.items()))) == summary
    assert list(sort_summary(dict(sorted(summary.items())))) == keys


def ascii_output(*words: str | Path) -> str:
    """What a command prints where stdout is a file that takes nothing but ASCII."""
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(file, encoding="ascii")) as out:
        assert main([str(word) for word in words]) == 0
        out.flush()
    return file.getvalue().decode("ascii")


def test_a_terminal_that_knows_ascii_alone_shows_the_tables(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("gäte,seed,m\n0,0,1\n1,0,2\n0,1,2\n1,1,4\n", encoding="utf-8")
    assert "g\\xe4te" in ascii_output("compare", table, "--metric=m", "--factors=gäte")
    fitted = ascii_output(*quick_fit(tmp_path / "rün", "--diagnostics.every_n_steps=0", "--variant=rün"))
    assert "| validation accuracy" in fitted
    assert "run directory: " in fitted
    assert "r\\xfcn" in fitted
