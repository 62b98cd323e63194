"""Runs `evaluate` and reads its results."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from running import Outcome, run


def evaluate(out: Path, run_dir: Path, *args: str | Path, tasks: str = "knn") -> Outcome:
    """Evaluate a run."""
    return run("evaluate", "--run", run_dir, "--tasks", tasks, "--out", out, "--device", "cpu", *args)


def numbers(out: Path) -> dict[str, Any]:
    """Content of `evaluation.json`."""
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return content


def table(out: Path) -> pl.DataFrame:
    """The rows of an evaluation."""
    return pl.read_parquet(out / "evaluation.parquet")
