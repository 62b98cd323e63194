"""The page of a report, opened from a file in a real browser without a network."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from running import heads

from sinkablate.report.page import render_page
from sinkablate.report.runs import read_runs

CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.heavy, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]
LAST = 4


class Browsed:
    """An open page: its tab, the messages of its console, and the requests that it made."""

    def __init__(self, context: Any, page: Path, fragment: str = "") -> None:
        self.path = page
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.tab = context.new_page()
        self.tab.on("console", lambda message: self.messages.append(message.text))
        self.tab.on("pageerror", lambda error: self.messages.append(str(error)))
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(page.as_uri() + fragment)
        self.tab.wait_for_selector("html[data-ready]")

    def shown(self, panel: str) -> list[dict[str, Any]]:
        """Scroll to a panel, so that it is drawn, and return its traces."""
        for _ in range(2):  # panels drawn while scrolling move the ones below
            self.tab.eval_on_selector(f"#{panel}-plot", "box => box.scrollIntoView({block: 'center'})")
            self.tab.wait_for_selector(f"#{panel}-plot:not([data-stale])")
        plain = "box => box.data.map(t => ({x: t.x, y: t.y, z: t.z, name: t.name, text: t.text}))"
        traces: list[dict[str, Any]] = self.tab.eval_on_selector(f"#{panel}-plot", plain)
        return traces

    def choose(self, **values: object) -> None:
        """Choose options in the controls above the panels."""
        for name, value in values.items():
            self.tab.select_option(f"#{name}", str(value))

    def click_square(self, block: int, head: int, of: int = 4) -> None:
        """Click one square in the frequency panel, which has `of` blocks and heads."""
        self.shown("frequency")
        box = self.tab.locator("#frequency-plot .nsewdrag").bounding_box()
        self.click(
            box["x"] + (head + 0.5) / of * box["width"],
            box["y"] + (of - block - 0.5) / of * box["height"],
            "frequency",
            f"block {block}, head {head}",
        )

    def click(self, x: float, y: float, panel: str, says: str) -> None:
        """Move the pointer to a point, wait for the text that appears there, and click."""
        self.tab.mouse.move(x, y)
        self.tab.wait_for_selector(f"#{panel}-plot .hoverlayer .hovertext:has-text('{says}')")
        self.tab.mouse.down()
        self.tab.mouse.up()

    def downloaded(self, panel: str) -> pl.DataFrame:
        """Return the CSV that the link of a panel downloads."""
        with self.tab.expect_download() as download:
            self.tab.click(f"#{panel}-csv")
        return pl.read_csv(download.value.path(), infer_schema_length=None)

    def card(self) -> dict[str, str]:
        """Return the numbers on the card of the chosen head."""
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
    assert browsed.messages == []  # neither errors nor requests
    assert [url.partition(":")[0] for url in browsed.requests if not url.startswith(("data:", "blob:"))] == ["file"]
    context.close()


def frequencies(run: Path, rule: str) -> np.ndarray:  # type: ignore[type-arg]
    """Return the event frequency (blocks, heads) that a run stored."""
    return heads(run, LAST).sort("block", "head")[f"{rule}_frequency"].to_numpy().reshape(4, 4)


def test_every_panel_is_drawn_when_it_becomes_visible(page: Browsed) -> None:
    page.choose(run="gate_reg-s0")  # the one that was diagnosed and edited
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
        ("effects", "difference in val/acc1", "cell"),
        ("handoff", "block", "share"),
        ("norms", "block", "L2 norm"),
        ("atlas", "value ratio", "stable rank"),
        ("edits", "relative RMS change of the final patch tokens", "edit"),
    ):
        traces = [trace for trace in page.shown(panel) if not str(trace["name"]).startswith("chosen")]
        drawn = [pair for trace in traces for pair in zip(trace["x"], trace["y"], strict=True) if pair[0] is not None]
        assert page.downloaded(panel).select(x, y).rows() == drawn, panel
    runs = page.downloaded("runs")
    points = page.downloaded("scatter").join(runs, on="run")
    assert len(points) == len(runs) == 8
    assert points["sink events per image (adaptive)"].to_list() == points["events"].to_list()
    effects = pl.read_csv(reported / "figures" / "effects.csv")
    shown = page.downloaded("effects")
    for column, stored in (("difference in val/acc1", "value"), ("low", "low"), ("high", "high")):
        np.testing.assert_allclose(shown[column].to_numpy(), effects[stored].to_numpy(), equal_nan=True)


def test_a_link_opens_what_it_names_and_follows_what_is_chosen(page: Browsed) -> None:
    page.choose(run="reg-s1", rule="adaptive", block=2)
    page.choose(head=3)
    fragment = page.tab.evaluate("location.hash")
    assert fragment == "#run=reg-s1&rule=adaptive&block=2&head=3&metric=val%2Facc1"
    again = Browsed(page.tab.context, page.path, fragment)
    for name, value in (("run", "reg-s1"), ("rule", "adaptive"), ("block", "2"), ("head", "3")):
        assert again.tab.input_value(f"#{name}") == value
    assert again.tab.inner_text("#card h2") == "Block 2, head 3"
    again.tab.evaluate("location.hash = '#run=gate-s0&block=1&head=0'")
    again.tab.wait_for_selector("#card h2:text-is('Block 1, head 0')")
    again.tab.evaluate("location.hash = '#run=gone&block=1&head=0'")
    again.tab.wait_for_selector("#status:has-text('run=gone')")
    assert again.tab.input_value("#run") == "gate-s0"
    again.tab.click("#contents a:has-text('How often each head sinks')")
    again.tab.wait_for_function("document.getElementById('frequency').getBoundingClientRect().top < 200")
    assert "run=gate-s0" in again.tab.evaluate("location.hash")
    assert again.messages == []


def test_every_control_is_reached_with_the_tab_key_and_shows_its_focus(page: Browsed) -> None:
    page.shown("scatter")
    page.tab.evaluate("scrollTo(0, 0)")
    page.tab.focus(".skip")
    reached = []
    for _ in range(200):
        page.tab.keyboard.press("Tab")
        here = "e => [e.id || e.textContent, e.tagName, getComputedStyle(e).outlineStyle, e.matches('.plot *')]"
        reached.append(page.tab.evaluate(f"({here})(document.activeElement)"))
    assert all(outline != "none" for _, tag, outline, _ in reached if tag in ("A", "BUTTON", "SELECT", "SUMMARY"))
    names = [name for name, *_ in reached]
    order = [names.index(name) for name in ("run", "rule", "block", "head", "metric", "runs-csv", "scatter-csv")]
    assert order == sorted(order)
    page.tab.focus("#runs-table button:text-is('reg-s0')")
    page.tab.keyboard.press("Enter")
    assert page.tab.input_value("#run") == "reg-s0"
    assert page.tab.evaluate("document.activeElement.textContent") == "reg-s0"
    page.tab.focus("#runs-table thead button:text-is('events')")
    page.tab.keyboard.press("Enter")
    rows = page.tab.eval_on_selector_all("#runs-table tbody tr", "rows => rows.map(row => +row.cells[5].textContent)")
    assert rows == sorted(rows)


def test_a_printed_page_holds_every_panel_and_every_row(page: Browsed) -> None:
    stale = "[...document.querySelectorAll('[data-stale]')].length"
    assert page.tab.evaluate(stale) > 0
    page.tab.emulate_media(media="print", color_scheme="dark")
    page.tab.set_viewport_size({"width": 718, "height": 1000})  # A4 without its margins
    page.tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.tab.evaluate(stale) == 0
    outside = (
        "[...document.querySelectorAll('section, table, .main-svg')].filter(e => e.getBoundingClientRect().right > 719)"
    )
    assert page.tab.evaluate(f"{outside}.map(e => e.closest('section').id)") == []
    clipped = "[...document.querySelectorAll('.scroll, #card')].filter(e => e.scrollHeight > e.clientHeight + 1)"
    assert page.tab.evaluate(f"{clipped}.length") == 0
    assert page.tab.evaluate("document.getElementById('scatter-plot').layout.font.color") == "#1d2329"
    page.tab.evaluate("dispatchEvent(new Event('afterprint'))")
    page.tab.emulate_media(media="screen", color_scheme="light")


def test_in_the_dark_the_page_and_its_plots_are_dark(page: Browsed) -> None:
    page.shown("scatter")
    ink = "getComputedStyle(document.getElementById('scatter-plot').querySelector('.xtitle')).fill"
    light = page.tab.evaluate(ink), page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    page.tab.emulate_media(color_scheme="dark")
    page.shown("scatter")
    dark = page.tab.evaluate(ink), page.tab.evaluate("getComputedStyle(document.body).backgroundColor")
    bright = [[sum(map(int, color[4:-1].split(","))) > 380 for color in pair] for pair in (light, dark)]
    assert bright == [[False, True], [True, False]]


@pytest.fixture(scope="module")
def crowded(ablated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 32 runs of eight variants, without its figures."""
    runs, _ = read_runs([str(ablated)])
    of = [(number, runs[number % len(runs)]) for number in range(32)]
    many = [
        replace(run, name=f"{run.variant}_{number // 8}-s{run.seed}", variant=f"{run.variant}_{number // 8}")
        for number, run in of
    ]
    made = render_page(
        many,
        {},
        None,
        title="Many",
        finding=[],
        rule="causal",
        metric="val/acc1",
        missing=dict.fromkeys(("ablation", "effects"), "-"),
        notes=[],
    )
    path = tmp_path_factory.mktemp("crowded") / "index.html"
    path.write_text(made, encoding="utf-8")
    return path


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080), (400, 800)])
def test_many_runs_fit_on_a_screen(size: tuple[int, int], browser: Any, crowded: Path) -> None:
    context = browser.new_context(viewport={"width": size[0], "height": size[1]})
    page = Browsed(context, crowded)
    for panel in ("scatter", "labels", "norms", "stability", "frequency"):
        assert page.shown(panel), panel
    assert page.tab.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.tab.locator("#runs-table tbody tr").count() == 32
    box = page.tab.locator(".tall").bounding_box()
    assert box["height"] <= 340
    assert page.tab.locator("#run optgroup").count() == len({name.split("-")[0] for name in names_of(page)})
    page.tab.click("#runs-table button:text-is('reg_3-s1')")
    assert page.tab.input_value("#run") == "reg_3-s1"
    assert page.messages == []
    context.close()


def names_of(page: Browsed) -> list[str]:
    """Return the runs that the table lists."""
    names: list[str] = page.tab.locator("#runs-table tbody button").all_inner_texts()
    return names


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
