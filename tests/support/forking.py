"""Commands in separate processes, forked from one that has already imported everything.

A new interpreter spends several seconds of CPU time on imports. A test that is about the behavior of a process (its
streams, its exit code, a signal that ends it), and not about the start of an interpreter, forks a process instead.
"""

import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 600.0
"""Seconds after which a process counts as hanging; no test should come near it."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "forking",
        "sinkablate.cli.lightning",
        "sinkablate.sweep.in_process",
        "sinkablate.diagnose.command",
        "sinkablate.evaluate.command",
        "sinkablate.intervene.command",
        "sinkablate.figures.sinks",
        "wandb",
        "sinkablate.callbacks.sinks",
    ]
)


def environment(**env: str) -> dict[str, str]:
    """The environment of a command: one thread, and only the given variables of W&B or a distributed launch."""
    foreign = ("WANDB_", "MASTER_", "TORCHELASTIC_")
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(foreign) and name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    return clean | {"OMP_NUM_THREADS": "1"} | env


class Command:
    """`python -m sinkablate WORDS` as a forked process.

    Args:
        words: Arguments of the command.
        env: The complete environment.
        before: Called first in the process, for example to make it end at a certain moment.
    """

    def __init__(self, words: Sequence[str], env: Mapping[str, str], before: Callable[[], None] | None = None) -> None:
        self._streams = tempfile.TemporaryDirectory()
        self.out, self.err = (Path(self._streams.name) / name for name in ("out", "err"))
        self._process = started(_main, list(words), dict(env), self.out, self.err, before)
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()
        self._streams.cleanup()

    @property
    def code(self) -> int | None:
        """Exit code, minus the number of the signal that ended it, or None while it runs."""
        return self._process.exitcode

    def wait(self, limit: float = LIMIT) -> int:
        """Wait for the end; returns the exit code."""
        self._process.join(limit)
        assert self.code is not None, f"still running after {limit} s: {self.output()}"
        return self.code

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        os.kill(self.pid, number)

    def output(self) -> tuple[str, str]:
        """Text that the process has written to stdout and stderr so far."""
        return self.out.read_text() if self.out.exists() else "", self.err.read_text() if self.err.exists() else ""


def started(function: Callable[..., None], *arguments: Any) -> Any:
    """Start a function of a test module in a forked process, and return the process."""
    _warm()
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    return process


def _warm() -> None:
    """Start the process to fork from, with the test modules importable and one thread."""
    before = dict(os.environ)
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ |= before


def _main(words: list[str], env: dict[str, str], out: Path, err: Path, before: Callable[[], None] | None) -> None:
    """Run `python -m sinkablate WORDS` in a forked process."""
    assert "sinkablate.cli.lightning" in sys.modules, "the process to fork from has imported nothing"
    import sinkablate.__main__ as command

    atexit._clear()  # they would remove folders of the process forked from, such as W&B's for media
    multiprocessing.set_start_method(None, force=True)  # as in a new interpreter
    os.environ.clear()
    os.environ |= env
    os.chdir(ROOT)
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.modules["__main__"], sys.argv = command, [str(command.__file__), *words]  # Lightning starts these again
    if before is not None:
        before()
    code: Any = 1
    try:
        code = command.main(words)
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()  # a forked process skips them
    sys.exit(code)


def die_after(folder: Path, pattern: str) -> None:
    """Kill this process at the first rename once a folder contains a file that matches a pattern."""

    def hook(event: str, _arguments: tuple[Any, ...]) -> None:
        if event == "os.rename" and list(folder.glob(pattern)):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def die_in_step(step: int) -> None:
    """Kill this process in the middle of a training step."""
    from sinkablate.callbacks.preemption import Preemption

    def die(_self: Any, trainer: Any, *_: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    Preemption.on_before_backward = die  # type: ignore[method-assign]
