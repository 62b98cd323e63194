"""The page of a report in a real browser, offline and from a file."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from running import heads

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]
LAST = 4


class Browsed:
    """A page that was opened: its tab, what its console said, what it asked the network for."""

    def __init__(self, context: Any, page: Path) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.tab = context.new_page()
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(page.as_uri())
        self.tab.wait_for_selector("html[data-ready]")

    def shown(self, panel: str) -> list[dict[str, Any]]:
        """Traces of a panel, scrolled to so that it is drawn."""
        for _ in range(2):  # what is drawn on the way moves what is below it
            self.tab.eval_on_selector(f"#{panel}-plot", "box => box.scrollIntoView({block: 'center'})")
            self.tab.wait_for_selector(f"#{panel}-plot:not([data-stale])")
        plain = "box => box.data.map(t => ({x: t.x, y: t.y, z: t.z, name: t.name, text: t.text}))"
        traces: list[dict[str, Any]] = self.tab.eval_on_selector(f"#{panel}-plot", plain)
        return traces

    def choose(self, **values: object) -> None:
        """Pick in the selects above the panels."""
        for name, value in values.items():
            self.tab.select_option(f"#{name}", str(value))

    def click_square(self, block: int, head: int, of: int = 4) -> None:
        """Click one square of the panel of frequencies, of `of` blocks and heads."""
        self.shown("frequency")
        box = self.tab.locator("#frequency-plot .nsewdrag").bounding_box()
        self.click(
            box["x"] + (head + 0.5) / of * box["width"],
            box["y"] + (of - block - 0.5) / of * box["height"],
            "frequency",
            f"block {block}, head {head}",
        )

    def click(self, x: float, y: float, panel: str, says: str) -> None:
        """Point at something, read what hovering says of it, and click."""
        self.tab.mouse.move(x, y)
        self.tab.wait_for_selector(f"#{panel}-plot .hoverlayer .hovertext:has-text('{says}')")
        self.tab.mouse.down()
        self.tab.mouse.up()

    def card(self) -> dict[str, str]:
        """Numbers of the card of the chosen head."""
        rows: list[list[str]] = self.tab.eval_on_selector_all(
            "#card tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return dict(rows)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, 900)])
def page(request: pytest.FixtureRequest, browser: Any, reported: Path) -> Iterator[Browsed]:
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height})
    context.set_offline(True)
    browsed = Browsed(context, reported / "index.html")
    yield browsed
    assert browsed.said == []  # whatever a test did, nothing went wrong and nothing was asked for
    assert [url.partition(":")[0] for url in browsed.asked if not url.startswith("data:")] == ["file"]
    context.close()


def frequencies(run: Path, rule: str) -> np.ndarray:  # type: ignore[type-arg]
    """Event frequency (blocks, heads) as a run stored it."""
    return heads(run, LAST).sort("block", "head")[f"{rule}_frequency"].to_numpy().reshape(4, 4)


def test_every_panel_is_drawn_when_it_comes_into_sight(page: Browsed) -> None:
    for panel in (
        "scatter",
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
    ):
        assert page.shown(panel), panel
    assert page.tab.locator("section").count() == 15
    assert page.tab.locator("section .what").count() == 14


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
            mass = next(trace for trace in page.shown("handoff") if trace["name"] == "patch, mass")
            np.testing.assert_allclose(mass["y"], blocks["mass_patch"], rtol=1e-3)
    assert any((one > 0).any() for one in shown)
    assert not np.array_equal(shown[0], shown[2])
    assert "register, mass" in [trace["name"] for trace in page.shown("handoff")]


def test_the_chosen_head_is_the_one_that_is_told_of(page: Browsed, ablated: Path) -> None:
    page.choose(run="gate-s0", rule="adaptive")
    for block, head in ((2, 1), (3, 0)):
        page.choose(block=block, head=head)
        row = heads(ablated / "runs" / "gate-s0", LAST).filter((pl.col("block") == block) & (pl.col("head") == head))
        said = page.card()
        assert float(said["attention mass on the dominant column"]) == pytest.approx(row["median_mass"][0], rel=6e-3)
        assert float(said["mean gate value"]) == pytest.approx(row["median_gate_open"][0], rel=6e-3)
        events = sum(row[f"adaptive_{label}"][0] for label in ("nop", "broadcast", "other"))
        assert said["events, rule adaptive"] == f"{events} of 8"
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


def test_a_point_is_a_run(page: Browsed) -> None:
    traces = page.shown("scatter")
    assert [trace["name"] for trace in traces[:4]] == ["baseline", "gate", "gate_reg", "reg"]
    box = page.tab.locator("#scatter-plot .scatterlayer .trace").nth(3).locator("path.point").nth(1).bounding_box()
    page.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, "scatter", "reg-s")
    page.tab.wait_for_selector("#card div:has-text('reg-s')")
    assert page.tab.input_value("#run") in ("reg-s0", "reg-s1")


def test_a_diagnosis_is_part_of_its_run(page: Browsed, ablated: Path) -> None:
    page.tab.locator("#sensitivity").scroll_into_view_if_needed()
    page.choose(run="gate-s0")
    page.tab.wait_for_selector("#sensitivity-plot .missing")
    page.choose(run="gate_reg-s0", rule="causal")
    table = pl.read_parquet(ablated / "diagnoses" / "first" / "sensitivity.parquet")
    home = table.filter((pl.col("rule") == "causal") & (pl.col("steps") == 0))["events"][0]
    events = page.shown("sensitivity")[0]
    assert home in [pytest.approx(value, abs=1e-9) for value in events["y"]]
    assert "Most mass on one column: val-" in page.tab.inner_text("#card")


def test_the_keyboard_is_enough(page: Browsed) -> None:
    before = page.tab.input_value("#run")
    page.tab.focus("#run")
    page.tab.keyboard.press("ArrowDown")
    after = page.tab.input_value("#run")
    assert before != after
    assert after in page.tab.inner_text("#card")


@pytest.mark.parametrize("page", [(400, 800)], indirect=True)
def test_on_a_narrow_screen_nothing_sticks_out_and_the_card_comes_to_the_click(page: Browsed) -> None:
    for panel in ("handoff", "frequency", "norms", "labels", "stability"):
        page.shown(panel)
    assert page.tab.evaluate("document.documentElement.scrollWidth") == 400
    page.click_square(1, 2)
    page.tab.wait_for_selector("#frequency + #card")
    assert page.tab.inner_text("#card h2") == "Block 1, head 2"
