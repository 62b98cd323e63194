"""`compare` from Python."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from running import run

import sinkablate as sa
from sinkablate.compare.formats import render


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_compare_returns_what_the_command_prints(library: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    cells = [(gate, registers, seed) for gate in ("none", "headwise") for registers in (0, 4) for seed in range(4)]
    columns = dict(zip(("gate", "registers", "seed"), map(list, zip(*cells, strict=True)), strict=True))
    frame = pl.DataFrame(columns | {"val/acc1": generator.normal(size=len(cells)).tolist()})
    frame.write_csv(tmp_path / "runs.csv")
    done = run("compare", tmp_path / "runs.csv", "--metric=val/acc1", "--factors=gate,registers", "--format=json")
    given = frame if library == "polars" else pd.DataFrame(frame.to_dict(as_series=False))
    table = sa.compare(given, metric="val/acc1", factors=["gate", "registers"])
    assert json.loads(render([table], "json")) == json.loads(done.succeeded().out)
    assert table.sentences
    with pytest.raises(sa.UserError, match="no such column"):
        sa.compare(given, metric="val/acc", factors=["gate"])
    with pytest.raises(sa.UserError, match="factors='gate': expected a list of str"):
        sa.compare(given, metric="val/acc1", factors="gate")
    with pytest.raises(sa.UserError, match="polars or pandas"):
        sa.compare([1], metric="val/acc1", factors=["gate"])


def test_a_pandas_table_of_any_types_is_read_as_the_polars_one() -> None:
    columns = {"gate": ["none", "none", "headwise", "headwise"], "seed": [0, 1, 0, 1], "acc": [0.1, 0.2, 0.3, None]}
    frame = pd.DataFrame(columns).astype({"gate": "category", "seed": "Int64"})
    expected = sa.compare(pl.DataFrame(columns), metric="acc", factors=["gate"])
    assert sa.compare(frame, metric="acc", factors=["gate"]).sentences == expected.sentences
    with pytest.raises(sa.UserError, match="two columns are named seed"):
        sa.compare(frame.rename(columns={"gate": "seed"}), metric="acc", factors=["gate"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"baseline": "gate=none"}, "baseline='gate=none': expected a dict"),
        ({"baseline": {"gat": "none"}}, "baseline=gat: not one of the factors; did you mean gate?"),
        ({"baseline": {"gate": "nne"}}, "baseline: gate has no level nne; did you mean none?"),
        ({"margin": "0.1"}, "margin='0.1': expected float"),
    ],
    ids=str,
)
def test_a_wrong_option_of_compare_is_refused(options: dict[str, Any], message: str) -> None:
    frame = pl.DataFrame({"gate": ["none", "none", "headwise", "headwise"], "seed": [0, 1, 0, 1], "m": [1, 2, 2, 4]})
    with pytest.raises(sa.UserError, match="^" + re.escape(message)):
        sa.compare(frame, metric="m", factors=["gate"], **options)


def test_a_level_of_the_baseline_may_be_a_number() -> None:
    frame = pl.DataFrame({"registers": [0, 0, 4, 4], "seed": [0, 1, 0, 1], "m": [1, 2, 2, 4]})
    for level in (0, 4):
        table = sa.compare(frame, metric="m", factors=["registers"], baseline={"registers": level})
        assert table.baseline == f"registers={level}"
