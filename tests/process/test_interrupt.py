"""Ctrl-C and the signals of a closed terminal: a run saves itself, and one line says how the command ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import LIMIT, ROOT, fit, run
from signalling import signal_at

from sinkablate import __main__ as command
from sinkablate.callbacks.preemption import Preemption
from sinkablate.process import signals

ENDS = {signal.SIGINT: 130, signal.SIGHUP: 75, signal.SIGQUIT: 75}
TWO_EPOCHS = ("--trainer.max_epochs=2", "--diagnostics.every_n_steps=0")


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Restores the signal handlers."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *signals.SIGNALS)}
    yield
    signals.reset()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDS)
def test_a_run_that_is_stopped_in_its_first_epoch_saves_itself(number: int, tmp_path: Path) -> None:
    with signal_at(0, number):
        stopped = fit(tmp_path / "run", *TWO_EPOCHS)
    name = signal.Signals(number).name
    assert stopped.code == ENDS[signal.Signals(number)]
    assert f"stopped by {name} and saved at step 1; the same command with --ckpt_path auto resumes it" in stopped.out
    assert json.loads((tmp_path / "run" / "PREEMPTED").read_text()) == {"signal": name, "step": 1}
    assert (tmp_path / "run" / "checkpoints" / "stopped.ckpt").exists()


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    with signal_at(0, signal.SIGHUP):
        fit(tmp_path / "run", "--diagnostics.every_n_steps=0").succeeded()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_that_the_job_script_ignores_are_handled(number: int) -> None:
    code = (
        "import signal; from sinkablate.process import signals; signals.install_handlers()\n"
        f"signal.raise_signal({int(number)}); print(signals.received())"
    )
    done = subprocess.run(
        ["bash", "-c", 'trap "" USR1 TERM; exec "$@"', "_", sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == signal.Signals(number).name


def test_ctrl_c_before_the_first_step_ends_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preemption, "setup", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT), raising=False)
    stopped = fit(tmp_path / "run")
    assert (stopped.code, stopped.err) == (130, "interrupted\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("verb", ["compare", "diagnose", "intervene", "report", "shards"])
def test_ctrl_c_ends_a_command_with_one_line(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setitem(command.FUNCTIONS, verb, lambda: (interrupted, None))
    stopped = run(verb)
    resume = "; the same command resumes after the finished part" if verb in ("diagnose", "intervene") else ""
    assert (stopped.code, stopped.err) == (130, f"interrupted{resume}\n")


def test_a_library_that_turns_ctrl_c_into_an_exit_code_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def exiting() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            sys.exit(1)  # as Lightning's trainer does

    monkeypatch.setitem(command.FUNCTIONS, "compare", lambda: (exiting, None))
    assert run("compare").code == 130


def process(body: str) -> subprocess.CompletedProcess[str]:
    """A process that runs `compare` with a function made of these lines."""
    code = (
        "import os, signal, sys\nfrom sinkablate import __main__ as command\n"
        "from sinkablate.process import signals\n"
        f"def work():\n{body}\n"
        "command.FUNCTIONS['compare'] = lambda: (work, None)\n"
        "sys.exit(command.main(['compare']))"
    )
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )


def test_a_second_ctrl_c_ends_the_process_at_once() -> None:
    done = process(
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: pass  # a library that goes on\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')"
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted again: quitting at once\n")


def test_ctrl_c_during_the_imports_of_fit_ends_with_one_line(tmp_path: Path) -> None:
    code = (
        "import builtins, os, signal, sys; import sinkablate.__main__ as main; real = builtins.__import__\n"
        "def load(name, *rest, **more):\n"
        "    if name == 'torch': os.kill(os.getpid(), signal.SIGINT)\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = load\n"
        f"sys.exit(main.main(['fit', '--run_dir', {str(tmp_path / 'run')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
