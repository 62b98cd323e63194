"""Runs the real command line, in this process if possible, and reads the results of runs."""

import contextlib
import csv
import hashlib
import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch
from forking import LIMIT, ROOT, Command, die_after, environment

from sinkablate.__main__ import main

CONFIGS = ROOT / "configs"
QUICK = (
    "--data.batch_size=16",
    "--data.eval_batch_size=32",
    "--diagnostics.images=8",
    "--diagnostics.heatmap=false",
    "--diagnostics.per_doubling=0",
    "--wandb.mode=disabled",
    "--trainer.limit_train_batches=2",
    "--trainer.limit_val_batches=1",
    "--trainer.max_epochs=1",
    "--trainer.log_every_n_steps=1",
    "--trainer.accelerator=cpu",
)
"""Arguments of a fit of two steps."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and both streams of one command."""

    code: int | str | None
    out: str
    err: str

    def succeeded(self) -> "Outcome":
        """Return the outcome, or fail the test and show stderr."""
        assert self.code == 0, self.err
        return self


def run(*args: str | Path) -> Outcome:
    """Run `python -m sinkablate ARGS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def assert_refused(outcome: Outcome, *phrases: str) -> None:
    """Check that a command ended with exit code 2 and one line on stderr that contains these phrases."""
    assert outcome.code == 2, outcome
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    for phrase in phrases:
        assert phrase in line
    assert "Traceback" not in outcome.out + outcome.err


def quick_fit(run_dir: Path, *args: str | Path, configs: Sequence[str | Path] = ()) -> list[str]:
    """Arguments of a `fit` of two steps into a directory; `configs` come first and `args` last, so `args` override."""
    stacked = [word for path in configs for word in ("--config", path)]
    return [str(word) for word in ("fit", *stacked, *QUICK, "--run_dir", run_dir, *args)]


def fit(run_dir: Path, *args: str | Path, configs: Sequence[str | Path] = ()) -> Outcome:
    """Run a `fit` of two steps into a directory."""
    return run(*quick_fit(run_dir, *args, configs=configs))


def spawn(*args: str | Path, launcher: tuple[str, ...] = (), **env: str) -> Outcome:
    """Run `python [LAUNCHER] -m sinkablate ARGS` in a new interpreter, without a W&B account."""
    command = [sys.executable, *launcher, "-m", "sinkablate", *map(str, args)]
    done = subprocess.run(
        command, env=environment(**env), capture_output=True, text=True, timeout=LIMIT, check=False, cwd=ROOT
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def started(*args: str | Path, before: Callable[[], None] | None = None, **env: str) -> Command:
    """Start a command in a forked process, which saves the imports; the caller must wait for it or end it."""
    return Command([str(arg) for arg in args], environment(**env), before)


def forked(*args: str | Path, **env: str) -> Outcome:
    """Run a command like `spawn`, in a forked process."""
    with started(*args, **env) as command:
        return Outcome(command.wait(), *command.output())


def together(count: int, *args: str | Path) -> Outcome:
    """Run a `fit` with one or several processes, started as by `torchrun`; returns the outcome of the first."""
    return ranks(count, *args, "--trainer.devices", str(count))[0] if count > 1 else forked(*args)


def ranks(count: int, *args: str | Path, before: Callable[[], None] | None = None) -> list[Outcome]:
    """Run a command in several processes, started as by `torchrun`; all must end with the same exit code.

    Args:
        count: Number of processes.
        args: Arguments of the command.
        before: Called first in every process.
    """
    with contextlib.ExitStack() as stack:
        launch = {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "none",
        }
        commands = [
            stack.enter_context(started(*args, before=before, **launch, RANK=str(number), LOCAL_RANK=str(number)))
            for number in range(count)
        ]
        codes = [command.wait() for command in commands]
        assert codes == [codes[0]] * count, [command.output() for command in commands]
        return [Outcome(code, *command.output()) for code, command in zip(codes, commands, strict=True)]


def free_port() -> int:
    """A free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], object], command: Command | None = None) -> None:
    """Wait until a condition holds, while a command runs."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert command is None or command.code is None, command.output()
        assert time.monotonic() < end, f"the condition did not hold within {LIMIT} s"
        time.sleep(0.02)


def killed(*args: str | Path, after: Path, pattern: str) -> None:
    """Run a command that is killed once a file in a folder matches a pattern, before the next file is in place."""
    with started(*args, before=partial(die_after, after, pattern)) as command:
        assert command.wait() == -signal.SIGKILL, command.output()
    assert list(after.glob(pattern))


def metrics(run_dir: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv`."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(run_dir: Path, name: str) -> dict[str, str]:
    """Values of one column by step, as strings."""
    return {row["step"]: row[name] for row in metrics(run_dir) if row[name]}


def summary(folder: Path) -> dict[str, Any]:
    """Content of a directory's `summary.json`, which must be JSON without NaN."""

    def refuse(constant: str) -> float:
        raise ValueError(constant)

    content: dict[str, Any] = json.loads((folder / "summary.json").read_text(), parse_constant=refuse)
    return content


def checkpoint(run_dir: Path, name: str = "last") -> dict[str, Any]:
    """Content of a checkpoint."""
    content: dict[str, Any] = torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)
    return content


def heads(run_dir: Path, step: int) -> pl.DataFrame:
    """Per-head diagnostics of one step."""
    return pl.read_parquet(run_dir / "diagnostics" / f"step_{step:08d}.parquet")


def tree(root: Path) -> dict[str, str]:
    """Hash of every file in a directory, by relative path."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
