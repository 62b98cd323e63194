"""Options of `compare`, and changes to a table that do not affect the results."""

import json
from pathlib import Path

import polars as pl
import pytest
from run_tables import CELL, as_json, compared, table
from running import run


def test_row_order_file_format_and_units_do_not_matter(tmp_path: Path) -> None:
    frame = table()
    first = as_json(compared(tmp_path, frame, "--format=json"))
    assert as_json(
        compared(
            tmp_path,
            frame.sample(fraction=1, shuffle=True, seed=1).sort("gate", descending=True),
            "--format=json",
            "--baseline=gate=none",
        )
    )["combinations"][0]["interaction"] == pytest.approx(first["combinations"][0]["interaction"])
    frame.with_columns(pl.col("registers").cast(pl.Float64)).write_parquet(tmp_path / "runs.parquet")
    from_parquet = as_json(
        run("compare", tmp_path / "runs.parquet", "--metric=val/acc1", "--factors=gate,registers", "--format=json")
    )
    assert from_parquet == first
    percent = as_json(compared(tmp_path, frame.with_columns(pl.col("val/acc1") * 100), "--format=json"))
    for one, other in zip(percent["differences"], first["differences"], strict=True):
        assert one["p_holm"] == pytest.approx(other["p_holm"])
        assert one["hedges_g"] == pytest.approx(other["hedges_g"])
        assert one["detectable"] == pytest.approx(100 * other["detectable"])


def test_a_loss_agrees_with_the_accuracy_if_lower_is_better(tmp_path: Path) -> None:
    outcome = compared(tmp_path, table(), "--lower_is_better", "val/loss", "--format=json", metric="val/acc1,val/loss")
    up, down = json.loads(outcome.succeeded().out)["comparisons"]
    for one, other in zip(up["differences"], down["differences"], strict=True):
        assert one["better"] is other["better"] is True
        assert one["estimate"]["value"] == pytest.approx(-other["estimate"]["value"])
    for one, other in zip(up["combinations"], down["combinations"], strict=True):
        assert one["complementary"] == other["complementary"] == "supported"
        assert one["p_complementary"] == pytest.approx(other["p_complementary"])
    higher_is_better = as_json(
        compared(tmp_path, table(), "--format=json", "--lower_is_better=false", metric="val/loss")
    )
    assert {combination["complementary"] for combination in higher_is_better["combinations"]} == {"not supported"}
    without_value = as_json(compared(tmp_path, table(), "--format=json", "--lower_is_better", metric="val/loss"))
    assert (
        without_value["combinations"]
        == as_json(compared(tmp_path, table(), "--format=json", "--lower-is-better=val/loss", metric="val/loss"))[
            "combinations"
        ]
    )


def test_where_selects_the_rows_of_a_level(tmp_path: Path) -> None:
    rows = table()
    both = pl.concat([rows.with_columns(task=pl.lit("a")), rows.with_columns(task=pl.lit("b"))])
    assert "two rows" in compared(tmp_path, both).err or compared(tmp_path, both).code == 2
    assert compared(tmp_path, both, "--where=task=b").succeeded().out == compared(tmp_path, rows).succeeded().out


def test_a_family_of_all_metrics_has_larger_p_values(tmp_path: Path) -> None:
    per_metric, over_all = (
        json.loads(
            compared(tmp_path, table(), "--format=json", "--family", family, metric="val/acc1,val/loss").succeeded().out
        )["comparisons"][0]
        for family in ("metric", "all")
    )
    assert "Holm over 10 differences" in over_all["family"]
    pairs = list(zip(per_metric["differences"], over_all["differences"], strict=True))
    assert all(other["p_holm"] >= one["p_holm"] for one, other in pairs)
    assert any(other["p_holm"] > one["p_holm"] for one, other in pairs)


def test_equivalence_is_claimed_only_within_a_margin(tmp_path: Path) -> None:
    frame = table(("none", "headwise"))
    assert "equivalent within" not in compared(tmp_path, frame).succeeded().out
    text = compared(tmp_path, frame, "--margin", "0.2").succeeded().out
    assert "additive within ±0.2 is supported (TOST" in text
    assert "equivalent within ±0.2 (TOST" in text


def test_welch_does_not_need_a_column_of_seeds(tmp_path: Path) -> None:
    text = compared(tmp_path, table().drop("seed"), "--primary", "welch").succeeded().out
    assert "there is no seed column, so runs are not paired" in text
    assert "Hotelling" not in text
    assert "two-way analysis of variance" in text


def test_the_variant_without_mechanisms_is_the_baseline(tmp_path: Path) -> None:
    variant = pl.format("gate={}+registers={}", "gate", "registers")
    rows = table().with_columns(pl.when(CELL).then(pl.lit("gate_reg")).otherwise(variant).alias("variant"))
    outcome = compared(tmp_path, rows, factors="variant")
    assert "the baseline variant=gate=none+registers=0 was chosen automatically" in outcome.succeeded().out
