"""Runs `intervene` on a run and reads its results."""

from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal
from running import Outcome, run

HEADS = ("--heads", "1:0,2:1,2:3", "--limit", "6", "--control_images", "2")
TABLES = ("rows", "heads", "classes", "validation")
FIGURES = ("edits_by_label", "effect_by_ratio")
FILES = {
    "intervention.json",
    "summary.json",
    "values.npz",
    *(f"{name}.parquet" for name in TABLES),
    *(f"figures/{name}.{kind}" for name in FIGURES for kind in ("pdf", "png", "csv")),
}


def intervene(run_dir: Path, out: Path, *args: str | Path, heads: tuple[str, ...] = HEADS) -> Outcome:
    return run("intervene", "--run", run_dir, "--out", out, *heads, *args)


def table(out: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(out / f"{name}.parquet")


def same_tables(one: Path, other: Path) -> None:
    for name in TABLES:
        assert_frame_equal(table(one, name), table(other, name), check_exact=True)
