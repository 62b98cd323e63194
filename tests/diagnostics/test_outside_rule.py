"""A rule that is registered outside the package appears wherever the package's own rules do."""

import json
from pathlib import Path

import polars as pl
import pytest
from reporting import LOW
from running import CONFIGS, column, fit, heads, run

from sinkablate.config import ThresholdConfig
from sinkablate.diagnostics.rules import Rule, register_rule, rule_named, unregister_rule
from sinkablate.errors import UserError

pytestmark = pytest.mark.heavy

LABELS = ("nop", "broadcast", "other", "undefined")


def fiftieth(thresholds: ThresholdConfig) -> Rule:
    """An event: one token receives at least a fiftieth of the attention."""
    return Rule(
        name="fiftieth",
        title="one token receives ≥ 2 % of the attention",
        event_quantity="mass",
        event_min=0.02,
        nop_max=thresholds.nop_max,
        broadcast_min=thresholds.broadcast_min,
        rank_max=thresholds.rank_max,
        event_steps=(0.01, 0.5),
    )


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `run`, `diagnosis`, `edits` and `report`, made in this order while the rule is registered."""
    root = tmp_path_factory.mktemp("outside")
    register_rule(fiftieth)
    try:
        words = ("--diagnostics.every_n_steps", "1", "--diagnostics.heatmap", "true", "--model.optim.lr", "0.01")
        fit(root / "run", *LOW, *words, configs=[CONFIGS / "gate_reg.yaml"]).succeeded()
        run("diagnose", "--run", root / "run", "--rule", "fiftieth", "--out", root / "diagnosis").succeeded()
        few = ("--limit", "8", "--rule", "fiftieth", "--edits", "mean_value", "--control_images", "2", "--heads", "1:0")
        run("intervene", "--run", root / "run", "--out", root / "edits", *few).succeeded()
        run("report", root / "run", root / "diagnosis", "--rule", "fiftieth", "--out", root / "report").succeeded()
    finally:
        unregister_rule(fiftieth)
    return root


def test_fit_logs_and_stores_the_rule(outputs: Path) -> None:
    assert set(column(outputs / "run", "sink/fiftieth/events")) == {"0", "1", "2"}
    summary = json.loads((outputs / "run" / "summary.json").read_text())
    assert summary["counts"]["fiftieth"]["events"] == summary["sink/fiftieth/events"] > 0
    assert any(text.startswith("fiftieth: event mass >= 0.02") for text in summary["rules"])
    assert {f"fiftieth_{label}" for label in LABELS} <= set(heads(outputs / "run", 2).columns)


def test_diagnose_tabulates_and_draws_the_rule(outputs: Path) -> None:
    folder = outputs / "diagnosis"
    table = pl.read_parquet(folder / "heads.parquet")
    assert {"fiftieth_frequency", "effective_fiftieth_nop"} <= set(table.columns)
    assert "fiftieth" in pl.read_parquet(folder / "sensitivity.parquet")["rule"].to_list()
    assert "events_fiftieth_patch" in pl.read_parquet(folder / "blocks.parquet").columns
    summary = json.loads((folder / "summary.json").read_text())
    assert "fiftieth" in summary["handoff"]["first_block_by_events"]
    assert summary["label_survival"]["fiftieth"]["all"] is not None
    assert summary["rule"] == "fiftieth"
    assert "by rule fiftieth" in summary["headline"]
    drawn = pl.read_csv(folder / "figures" / "frequency.csv").sort("block", "head")["frequency"]
    assert drawn.to_list() == pytest.approx(table.sort("block", "head")["fiftieth_frequency"].to_list())
    assert "fiftieth" in pl.read_csv(folder / "figures" / "sensitivity.csv")["rule"].to_list()


def test_intervene_labels_by_the_rule(outputs: Path) -> None:
    rows = pl.read_parquet(outputs / "edits" / "rows.parquet")
    with_rule = pl.read_parquet(outputs / "edits" / "diagnosis" / "heads.parquet")
    counts = with_rule.filter(block=1, head=0).select(f"fiftieth_{label}" for label in LABELS[:3]).row(0)
    assert sum(counts) > 0
    assert [rows["label"].to_list().count(label) for label in LABELS[:3]] == list(counts)


def test_report_shows_the_rule(outputs: Path) -> None:
    page = (outputs / "report" / "index.html").read_text()
    assert '"rule":"fiftieth"' in page
    assert "rule fiftieth" in (outputs / "report" / "tables" / "runs.md").read_text()
    drawn = pl.read_csv(outputs / "report" / "figures" / "frequency.csv")["frequency"]
    assert drawn.max() == pl.read_parquet(outputs / "diagnosis" / "heads.parquet")["fiftieth_frequency"].max()


@pytest.mark.parametrize("name", ["causal", "def1_0.3", "effective_mine", "a/b", "", "1st"])
def test_a_name_that_is_taken_or_cannot_be_a_column_is_refused(name: str) -> None:
    def factory(thresholds: ThresholdConfig) -> Rule:
        return Rule(name=name, title="", event_quantity="mass", event_min=0, nop_max=0.2, broadcast_min=0.5, rank_max=1)

    with pytest.raises(UserError, match=f"rule={name}"):
        register_rule(factory)


def test_an_unregistered_rule_is_gone(outputs: Path) -> None:
    with pytest.raises(UserError, match="rule=fiftieth: no such rule"):
        rule_named("fiftieth", ThresholdConfig())
