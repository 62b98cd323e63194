"""Runs the real command line, in this process where one will do, and reads what a run leaves behind."""

import contextlib
import csv
import hashlib
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from sinkablate.__main__ import main

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "configs"
QUICK = (
    "--data.batch_size=16", "--data.eval_batch_size=32", "--diagnostics.images=8", "--diagnostics.heatmap=false",
    "--wandb.mode=disabled", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1",
    "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--trainer.accelerator=cpu",
)
"""A fit of two steps."""


@dataclass(frozen=True)
class Outcome:
    """Exit code and both streams of one command."""

    code: int | str | None
    out: str
    err: str

    def succeeded(self) -> "Outcome":
        """Itself, or a failed test that shows what was said."""
        assert self.code == 0, self.err
        return self


def run(*args: str | Path) -> Outcome:
    """`python -m sinkablate ARGS` in this process."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str | None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as end:
            code = end.code
    return Outcome(code, out.getvalue(), err.getvalue())


def quick_fit(run_dir: Path, *args: str | Path, configs: Sequence[str | Path] = ()) -> list[str]:
    """The words of a `fit` of two steps into a directory; `configs` come first, `args` last, so that each wins."""
    stacked = [word for path in configs for word in ("--config", path)]
    return [str(word) for word in ("fit", *stacked, *QUICK, "--run_dir", run_dir, *args)]


def fit(run_dir: Path, *args: str | Path, configs: Sequence[str | Path] = ()) -> Outcome:
    """A quick `fit` into a directory."""
    return run(*quick_fit(run_dir, *args, configs=configs))


def spawn(*args: str | Path, launcher: tuple[str, ...] = (), limit: int = 150, **env: str) -> Outcome:
    """`python [LAUNCHER] -m sinkablate ARGS` as a process of its own, where no W&B account is to be found."""
    clean = {k: v for k, v in os.environ.items() if not re.match(r"WANDB_|RANK$|WORLD_SIZE$|LOCAL_RANK$|MASTER_", k)}
    command = [sys.executable, *launcher, "-m", "sinkablate", *map(str, args)]
    done = subprocess.run(command, env=clean | {"OMP_NUM_THREADS": "1"} | env, capture_output=True, text=True,
                          timeout=limit, check=False, cwd=ROOT)
    return Outcome(done.returncode, done.stdout, done.stderr)


def killed(*args: str | Path, after: Path, pattern: str) -> None:
    """`python -m sinkablate ARGS` as a process, killed as soon as a folder holds a file of that pattern."""
    with subprocess.Popen([sys.executable, "-m", "sinkablate", *map(str, args)], cwd=ROOT,
                          env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 100
        while not list(after.glob(pattern)) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        process.kill()


def metrics(run_dir: Path) -> list[dict[str, str]]:
    """Rows of `metrics.csv`."""
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(run_dir: Path, name: str) -> dict[str, str]:
    """The values of one column as written, by step."""
    return {row["step"]: row[name] for row in metrics(run_dir) if row[name]}


def heads(run_dir: Path, step: int) -> pl.DataFrame:
    """Per-head diagnostics of one step."""
    return pl.read_parquet(run_dir / "diagnostics" / f"step_{step:08d}.parquet")


def tree(root: Path) -> dict[str, str]:
    """Hash of every file under a directory."""
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*")) if path.is_file()}
