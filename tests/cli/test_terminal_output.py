"""What a run prints: a progress bar on a terminal, rounded scores, and a summary that starts with the main results."""

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
    """A stream that claims to be a terminal and keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 100 columns with colors."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def plain(text: str) -> str:
    """Remove the control sequences for colors and cursor movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_the_progress_bar_counts_epochs_from_one_and_shows_the_remaining_time(
    terminal: Terminal, tmp_path: Path
) -> None:
    args = quick_fit(tmp_path / "run", "--trainer.max_epochs=2", "--diagnostics.every_n_steps=0")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(terminal):
        assert main(args) == 0
    text = plain(terminal.getvalue())
    assert re.search(r"epoch 1/2 .* 0/4", text)
    assert re.search(r"epoch 2/2 .* 4/4 \d+ images/s  loss \d\.\d{3} \d:\d\d:\d\d left", text)
    assert "0/?" not in text
    lines = re.findall(r"epoch [12]/2  [a-z].*", text)
    assert len(lines) == 2, text
    assert all(name in lines[1] for name in ("train/loss", "val/acc1", "val/acc5", "val/loss"))
    assert terminal.getvalue().endswith("\x1b[2K")  # the bar is erased


def test_a_refused_command_leaves_one_line_on_a_terminal(terminal: Terminal) -> None:
    with contextlib.redirect_stderr(terminal):
        assert main(["fit", "--trainer.bogus", "1"]) == 2
    assert terminal.getvalue().startswith("loading PyTorch and Lightning ...\r\r\x1b[2K")
    assert terminal.getvalue().partition("\x1b[2K")[2].count("\n") == 1


def test_redirected_output_has_one_line_per_epoch(tmp_path: Path) -> None:
    text = fit(tmp_path / "run", "--diagnostics.every_n_steps=0").succeeded().out
    assert re.search(r"^epoch 1/1  val/acc1 0\.\d{4}$", text, re.MULTILINE)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_scores_are_rounded_and_libraries_print_no_advice(command: str, finished: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        outcome = run(
            command,
            "--config",
            finished / "config.yaml",
            *QUICK[4:7],
            "--trainer.limit_test_batches=1",
            "--ckpt_path",
            finished / "checkpoints" / "last.ckpt",
            "--run_dir",
            tmp_path / "out",
        ).succeeded()
    assert re.search(r"accuracy +\S +\d+\.\d\d% ", outcome.out)
    assert not re.search(r"\d\.\d{5}", outcome.out)
    assert f"{command}.json" in outcome.out
    assert "Preemption" not in outcome.err + " ".join(str(warning.message) for warning in caught)


def test_a_summary_starts_with_the_main_results(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    keys = list(summary)
    assert keys[:4] == ["name", "val/acc1", "val/acc5", "val/loss"]
    assert {"sink/events", "images_per_second", "parameters", "steps"} <= set(keys[:25])
    nested = [isinstance(value, dict | list) for value in summary.values()]
    assert nested == sorted(nested)
    assert sort_summary(dict(sorted(summary.items()))) == summary
    assert list(sort_summary(dict(sorted(summary.items())))) == keys


def ascii_output(*args: str | Path) -> str:
    """Output of a command whose stdout accepts only ASCII."""
    file = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(file, encoding="ascii")) as out:
        assert main([str(word) for word in args]) == 0
        out.flush()
    return file.getvalue().decode("ascii")


def test_tables_are_printed_on_an_ascii_terminal(tmp_path: Path) -> None:
    table = tmp_path / "runs.csv"
    table.write_text("gäte,seed,m\n0,0,1\n1,0,2\n0,1,2\n1,1,4\n", encoding="utf-8")
    assert "g\\xe4te" in ascii_output("compare", table, "--metric=m", "--factors=gäte")
    fitted = ascii_output(*quick_fit(tmp_path / "rün", "--diagnostics.every_n_steps=0", "--variant=rün"))
    assert "| validation accuracy" in fitted
    assert "run directory: " in fitted
    assert "r\\xfcn" in fitted
