"""Options and tables that `compare` refuses in one line."""

from pathlib import Path

import polars as pl
import pytest
from run_tables import CELL, compared, table
from running import assert_refused, run

BAD = {
    "an unknown column": (("--nested=prob",), "nested=prob: no such column"),
    "an unknown column in where": (("--where=gates=none",), "where=gates: no such column; did you mean gate"),
    "an unknown level in where": (("--where=gate=headwize",), "where: no row has gate=headwize; did you mean headwise"),
    "an unknown level in the baseline": (
        ("--baseline=gate=headwize",),
        "gate has no level headwize; did you mean headwise",
    ),
    "an unknown factor in the baseline": (
        ("--baseline=gates=none",),
        "baseline=gates: not one of the factors; did you mean gate",
    ),
    "a baseline without a level": (("--baseline=gate",), "baseline=gate: must have the form NAME=VALUE"),
    "an unknown column of seeds": (("--pair_by=sed",), "use primary=welch); did you mean seed?"),
    "a negative margin": (("--margin=-1",), "margin=-1.0: must be a number above 0"),
    "a word instead of a number": (("--detect=much",), "detect=much: not a number"),
    "an unknown metric": (("--lower_is_better=val/los",), "lower_is_better=val/los: not one of the metrics"),
    "a column that is not boolean": (("--diverged=status",), "status: neither true nor false in row 1"),
    "a missing output folder": (("--out=/nowhere/at/all.txt",), "out=/nowhere/at/all.txt"),
    "an unknown option": (("--metrik=x",), "metrik"),
    "an unknown family": (("--family=both",), "family"),
}


@pytest.mark.parametrize(("args", "message"), BAD.values(), ids=BAD)
def test_a_wrong_option_is_refused_in_one_line(tmp_path: Path, args: tuple[str, ...], message: str) -> None:
    outcome = compared(tmp_path, table(), *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "metric", "factors", "message"),
    [
        (lambda f: f, "val/acc", "gate", "metric=val/acc: no such column; did you mean val/acc1"),
        (lambda f: f, "status", "gate,registers", "metric=status: not a number in row 1: 'done'"),
        (lambda f: f, "val/acc1", "gate", "2 rows for gate=none, seed=0 (the first of 15 such groups)"),
        (lambda f: f, "val/acc1", "gate,gate", "factors=gate,gate: a name is repeated"),
        (lambda f: pl.concat([f, f[:1]]), "val/acc1", "gate,registers", "2 rows for gate=none, registers=0, seed=0"),
        (lambda f: f.filter(CELL), "val/acc1", "gate,registers", "one level each, nothing to compare"),
        (lambda f: f.filter(pl.col("gate") != "none"), "val/acc1", "gate,registers", "is an obvious baseline"),
        (
            lambda f: f.with_columns(pl.lit(None).alias("val/acc1")),
            "val/acc1",
            "gate,registers",
            "no row has a finite value",
        ),
        (
            lambda f: f.filter((pl.col("gate") != "none") | (pl.col("registers") == 4)),
            "val/acc1",
            "gate,registers",
            "there are no runs with gate=none, registers=0",
        ),
        (
            lambda f: f.with_columns(pl.col("seed").replace(2, None)),
            "val/acc1",
            "gate,registers",
            "pair_by=seed: no value in row 13",
        ),
        (lambda f: f[:0], "val/acc1", "gate,registers", "the table has no rows"),
    ],
)
def test_an_unsuitable_table_is_refused(tmp_path: Path, change, metric: str, factors: str, message: str) -> None:
    outcome = compared(tmp_path, change(table()), metric=metric, factors=factors)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_file_that_is_not_a_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs.parquet").write_text("no")
    (tmp_path / "runs.txt").write_text("no")
    (tmp_path / "twice.csv").write_text("a,a,m\n1,2,3\n")
    for name, message in {
        "missing.csv": "no such file",
        "runs.parquet": "cannot be read",
        "runs.txt": "a .csv or .parquet",
        "twice.csv": "two columns are named a",
    }.items():
        outcome = run("compare", tmp_path / name, "--metric=m", "--factors=a")
        assert outcome.code == 2
        assert message in outcome.err


def test_numbers_of_different_protocols_are_refused(tmp_path: Path) -> None:
    frame = table().rename({"val/acc1": "segmentation/miou"})
    protocol = pl.when(pl.col("gate") == "headwise").then(pl.lit("augmented")).otherwise(pl.lit("cached"))
    mixed = frame.with_columns(protocol.alias("segmentation/protocol"))
    outcome = compared(tmp_path, mixed, metric="segmentation/miou")
    assert_refused(outcome, "metric=segmentation/miou: measured by different protocols (cached; augmented)")
    one = ("--where", "segmentation/protocol=cached")
    assert "elementwise" in compared(tmp_path, mixed, *one, metric="segmentation/miou").succeeded().out
    unmeasured = mixed.with_columns(
        pl.when(pl.col("segmentation/protocol") == "cached").then("segmentation/miou").alias("segmentation/miou")
    )
    compared(tmp_path, unmeasured, metric="segmentation/miou").succeeded()
