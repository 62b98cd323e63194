"""Runs `evaluate` and reads its results."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from running import Outcome, run, tree


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


def folder_data(folder: Path) -> tuple[str, ...]:
    """Arguments that name a folder of labeled images, with `train` and `val` in it."""
    source = "--data.source"
    return (
        f"{source}.format",
        "folder",
        f"{source}.train",
        str(folder / "train"),
        f"{source}.val",
        str(folder / "val"),
    )


def small_chunks() -> None:
    """Let a chunk of the cache hold eight images, so that a small set has several."""
    from sinkablate.evaluate import cache

    cache.CHUNK_ROWS = 8


def same_results(one: Path, other: Path) -> None:
    """Check that two evaluations hold the same features, rows and numbers, except the time and memory they took."""
    features = (
        {name: content for name, content in tree(out).items() if name.startswith("features/")} for out in (one, other)
    )
    assert next(features) == next(features)
    assert table(one).rows() == table(other).rows()
    process = ("seconds", "peak_memory_gib")
    first, second = ({k: v for k, v in numbers(out).items() if k not in process} for out in (one, other))
    assert first == second
