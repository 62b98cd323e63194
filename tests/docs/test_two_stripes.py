"""The first figure of the README shows what the shipped script computes."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from running import ROOT

SCRIPT = ROOT / "docs" / "figures" / "two_stripes.py"
DATA = pl.read_csv(SCRIPT.with_suffix(".csv"))


def test_the_broadcast_head_of_the_pretrained_model(dinov2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    spec = importlib.util.spec_from_file_location("two_stripes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "two_stripes", script)
    spec.loader.exec_module(script)
    row = script.of_vit(str(dinov2))
    shown = DATA.filter(pl.col("label") == "broadcast")
    assert row.label == "broadcast"
    for name in ("mean_attention", "relative_norm"):
        np.testing.assert_allclose(row.table[name], shown[name], rtol=1e-3, atol=1e-4)
    assert len(script.draw([row, row]).axes) == 8


def test_the_numbers_of_the_two_sinks() -> None:
    sinks = DATA.sort("mean_attention").group_by("label").last()
    broadcast, nop = (sinks.filter(pl.col("label") == label).row(0, named=True) for label in ("broadcast", "nop"))
    assert min(broadcast["mean_attention"], nop["mean_attention"]) > 0.5
    assert broadcast["relative_norm"] == pytest.approx(0.82, abs=0.005)
    assert nop["relative_norm"] == pytest.approx(0.01, abs=0.005)
