"""The panels of a report's page show the measured numbers, and clicks choose runs and heads."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from browsing import CHROMIUM, Browsed
from reporting import report
from running import heads

from sinkablate.figures.atlas import RANKS

LAST = 4
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


def frequencies(run: Path, rule: str) -> np.ndarray:  # type: ignore[type-arg]
    """Return the event frequency (blocks, heads) that a run stored."""
    return heads(run, LAST).sort("block", "head")[f"{rule}_frequency"].to_numpy().reshape(4, 4)


def test_every_panel_is_drawn_when_it_becomes_visible(page: Browsed) -> None:
    page.choose(run="gate_reg-s0")  # the one that was diagnosed and edited
    for panel in (
        "scatter",
        "quality",
        "labels",
        "ablation",
        "effects",
        "norms",
        "stability",
        "handoff",
        "frequency",
        "atlas",
        "formation",
        "sensitivity",
        "edits",
        "token_maps",
    ):
        assert page.shown(panel), panel
    assert page.tab.locator("section").count() == 18
    assert page.tab.locator("section .what").count() == 17


def test_another_run_and_rule_show_their_own_numbers(page: Browsed, ablated: Path) -> None:
    shown = []
    for run in ("baseline-s0", "reg-s1"):
        for rule in ("causal", "adaptive"):
            page.choose(run=run, rule=rule)
            (squares,) = page.shown("frequency")
            stored = frequencies(ablated / "runs" / run, rule)
            np.testing.assert_allclose(squares["z"], stored, atol=1e-9)
            shown.append(stored)
            blocks = pl.read_parquet(ablated / "runs" / run / "diagnostics" / "blocks" / f"step_{LAST:08d}.parquet")
            mass = [trace for trace in page.shown("handoff") if trace["name"] == "patch"][-1]  # the last frame
            np.testing.assert_allclose(
                np.array(mass["y"]) / mass["y"][0], blocks["mass_patch"] / blocks["mass_patch"][0], rtol=2e-3
            )
    assert any((one > 0).any() for one in shown)
    assert not np.array_equal(shown[0], shown[2])
    assert "register" in [trace["name"] for trace in page.shown("handoff")]


def test_token_maps_show_the_chosen_image_before_and_after_the_chosen_block(page: Browsed, ablated: Path) -> None:
    page.choose(run="gate_reg-s0", block=2)
    page.choose(image=1)
    with np.load(ablated / "diagnoses" / "first" / "token_maps.npz") as stored:
        norms, name = stored["norms"][1].astype(np.float64), str(stored["names"][1])
    for block in (2, 0):
        page.choose(block=block)
        shown = page.shown("token_maps")
        for trace, stage in zip(shown[1:3], (block, block + 1), strict=True):  # the first stage is the input of block 0
            np.testing.assert_allclose(trace["z"], norms[stage], rtol=1e-3)
    table = page.downloaded("token_maps").filter(pl.col("stage") == "before block 0")
    assert set(table["image"]) == {name}
    np.testing.assert_allclose(table["value"], norms[0].ravel(), rtol=1e-3)
    assert "image=1" in page.tab.evaluate("location.hash")
    page.choose(run="gate-s0")  # was not diagnosed
    assert page.tab.locator("#image").is_hidden()
    page.tab.eval_on_selector("#token_maps-plot", "box => box.scrollIntoView({block: 'center'})")
    page.tab.wait_for_selector("#token_maps-plot .missing:has-text('gate-s0 holds no token maps')")


def test_the_card_shows_the_numbers_of_the_chosen_head(page: Browsed, ablated: Path) -> None:
    page.choose(run="gate-s0", rule="adaptive")
    for block, head in ((2, 1), (3, 0)):
        page.choose(block=block, head=head)
        row = heads(ablated / "runs" / "gate-s0", LAST).filter((pl.col("block") == block) & (pl.col("head") == head))
        numbers = page.card()
        assert float(numbers["attention mass on the dominant column"]) == pytest.approx(row["median_mass"][0], rel=6e-3)
        assert float(numbers["mean gate value"]) == pytest.approx(row["median_gate_open"][0], rel=6e-3)
        events = sum(row[f"adaptive_{label}"][0] for label in ("nop", "broadcast", "other"))
        assert numbers["events, rule adaptive"] == f"{events} of 8"
        traces = [trace for trace in page.shown("formation") if trace["name"].startswith("block")]
        mine = next(trace for trace in traces if f"head {head}" in trace["name"])
        stored = [
            heads(ablated / "runs" / "gate-s0", step).filter((pl.col("block") == block) & (pl.col("head") == head))[
                "adaptive_frequency"
            ][0]
            for step in mine["x"]
        ]
        np.testing.assert_allclose(mine["y"], stored, atol=1e-3)
        assert len(traces) == 4
        assert f"block {block}, head {head}" in mine["name"]


def test_a_click_chooses_a_head_and_shows_its_images(page: Browsed) -> None:
    page.choose(run="gate_reg-s1")
    find = "report.runs.find(run => run.name === 'gate_reg-s1').maps.heads.map(one => [one.block, one.head])"
    mapped = page.tab.evaluate(find)
    assert len(mapped) == 4
    for block, head in mapped[1:3]:
        page.click_square(block, head)
        page.tab.wait_for_selector(f"#card h2:text-is('Block {block}, head {head}')")
        assert page.tab.locator("#card figure").count() == 4
        sizes = page.tab.eval_on_selector_all("#card img", "all => all.map(one => one.naturalWidth)")
        assert sizes == [28, 4] * 4  # a picture, and a map of 4 x 4 patches
        assert (page.tab.input_value("#block"), page.tab.input_value("#head")) == (str(block), str(head))
    other = next((b, h) for b in range(4) for h in range(4) if [b, h] not in mapped)
    page.click_square(*other)
    page.tab.wait_for_selector("#card .tiles:has-text('Maps exist for the heads')")


def test_a_click_on_a_point_chooses_its_run(page: Browsed) -> None:
    traces = page.shown("scatter")
    assert [trace["name"] for trace in traces[:4]] == ["baseline", "gate", "gate_reg", "reg"]
    box = page.tab.locator("#scatter-plot .scatterlayer .trace").nth(3).locator("path.point").nth(1).bounding_box()
    page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, "scatter", "reg-s")
    page.tab.wait_for_selector("#card div:has-text('reg-s')")
    assert page.tab.input_value("#run") in ("reg-s0", "reg-s1")


def test_a_diagnosis_is_shown_with_its_run(page: Browsed, ablated: Path) -> None:
    page.tab.locator("#sensitivity").scroll_into_view_if_needed()
    page.choose(run="gate-s0")
    page.tab.wait_for_selector("#sensitivity-plot .missing")
    page.choose(run="gate_reg-s0", rule="causal")
    table = pl.read_parquet(ablated / "diagnoses" / "first" / "sensitivity.parquet")
    home = table.filter((pl.col("rule") == "causal") & (pl.col("steps") == 0))["events"][0]
    events = page.shown("sensitivity")[0]
    assert home in [pytest.approx(value, abs=1e-9) for value in events["y"]]
    assert "Most mass on one column: val-" in page.tab.inner_text("#card")


def test_the_csv_of_a_panel_holds_the_numbers_that_it_shows(page: Browsed, ablated: Path, reported: Path) -> None:
    page.choose(run="gate_reg-s0", rule="adaptive")
    (squares,) = page.shown("frequency")
    table = page.downloaded("frequency")
    assert table["share of images with an event (adaptive)"].to_list() == np.ravel(squares["z"]).tolist()
    np.testing.assert_allclose(
        table.sort("block", "head")["share of images with an event (adaptive)"].to_numpy().reshape(4, 4),
        frequencies(ablated / "runs" / "gate_reg-s0", "adaptive"),
        atol=1e-9,
    )
    for panel, x, y in (
        ("scatter", "sink events per image (adaptive)", "val/acc1"),
        ("quality", "sink events per image (adaptive)", "value"),
        ("effects", "difference in val/acc1", "cell"),
        ("handoff", "block", "value"),
        ("norms", "block", "L2 norm"),
        ("atlas", RANKS["routed_stable_rank"], "‖W v_s‖ / mean ‖W v_j‖"),
        ("edits", "relative RMS change of the final patch tokens", "edit"),
    ):
        traces = [trace for trace in page.shown(panel) if not str(trace["name"]).startswith("chosen")]
        drawn = [pair for trace in traces for pair in zip(trace["x"], trace["y"], strict=True) if pair[0] is not None]
        assert page.downloaded(panel).select(x, y).drop_nulls(x).rows() == drawn, panel
    gated = page.downloaded("quality-table").filter(metric="knn/acc1", gate="headwise", runs=2)
    assert gated["mean"].to_list() == [pytest.approx(page.downloaded("quality").filter(series="gate")["value"].mean())]
    runs = page.downloaded("runs")
    points = page.downloaded("scatter").join(runs, on="run")
    assert len(points) == len(runs) == 8
    assert points["sink events per image (adaptive)"].to_list() == points["events"].to_list()
    effects = pl.read_csv(reported / "figures" / "effects.csv")
    shown = page.downloaded("effects")
    for column, stored in (("difference in val/acc1", "value"), ("low", "low"), ("high", "high")):
        np.testing.assert_allclose(shown[column].to_numpy(), effects[stored].to_numpy(), equal_nan=True)


def test_the_ticks_of_a_logarithmic_axis_are_labeled_in_full(page: Browsed) -> None:
    for panel, direction in {"norms": "y", "atlas": "x"}.items():
        page.shown(panel)
        sign = {"x": "", "y": "-"}[direction]
        where = f"ticks => ticks.map(tick => [+tick.textContent, {sign}tick.getBoundingClientRect().{direction}])"
        ticks: list[list[float]] = page.tab.eval_on_selector_all(f"#{panel}-plot .{direction}tick text", where)
        assert len(ticks) >= 3, panel
        assert [value for value, _ in sorted(ticks, key=lambda tick: tick[1])] == sorted(value for value, _ in ticks)


def test_an_effect_of_zero_stands_at_a_tick_labeled_0(browser: Any, ablated: Path, tmp_path: Path) -> None:
    shutil.copytree(ablated / "edits", tmp_path / "edits", symlinks=True)
    stored = tmp_path / "edits" / "heads.parquet"
    effects = pl.Series("effect", [0.0, *np.geomspace(0.02, 0.3, len(pl.read_parquet(stored)) - 1)])
    pl.read_parquet(stored).with_columns(effects, effect_low=effects, effect_high=effects).write_parquet(stored)
    report(tmp_path / "out", tmp_path / "edits", "--maps", "0").succeeded()
    opened = Browsed(browser.new_context(), tmp_path / "out" / "index.html")
    drawn = [value for trace in opened.shown("edits") for value in trace["x"]]
    assert sorted(drawn) == pytest.approx(sorted([0.001, *effects[1:]]), rel=1e-3)
    ticks = opened.tab.eval_on_selector_all("#edits-plot .xtick text", "ticks => ticks.map(tick => tick.textContent)")
    assert ticks == ["0", "0.01", "0.1", "1"]
    table = opened.downloaded("edits")
    assert sorted(table["relative RMS change of the final patch tokens"]) == pytest.approx(effects.to_list(), rel=1e-3)
    assert opened.messages == []
