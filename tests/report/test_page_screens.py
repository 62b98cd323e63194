"""The page of a report on screens of several sizes, on paper, in the dark, by keyboard, and opened by a shared link."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Browsed

from sinkablate.report.page import render_page
from sinkablate.report.runs import read_runs

pytestmark = [pytest.mark.heavy, pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")]


def test_a_link_opens_what_it_names_and_follows_what_is_chosen(page: Browsed) -> None:
    page.choose(run="reg-s1", rule="adaptive", block=2)
    page.choose(head=3)
    fragment = page.tab.evaluate("location.hash")
    assert fragment == "#run=reg-s1&rule=adaptive&block=2&head=3&metric=val%2Facc1&value=ratio_out"
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
    names = page.tab.locator("#runs-table thead th").all_inner_texts()
    column = next(index for index, name in enumerate(names) if name.startswith("events"))
    cells = page.tab.locator(f"#runs-table tbody td:nth-child({column + 1})").all_inner_texts()
    assert len(cells) == 8
    assert cells == sorted(cells, key=float)


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
    page.tab.evaluate("darkScheme.dispatchEvent(new Event('change'))")  # a browser may switch to light to print
    assert page.tab.evaluate(stale) == 0
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
        [],
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
    page.tab.eval_on_selector(".tall", "box => { box.scrollLeft = 10000; }")
    name = page.tab.locator("#runs-table tbody td:first-child").first.bounding_box()
    assert name["x"] >= box["x"]
    assert name["x"] + name["width"] < box["x"] + box["width"]  # the name of the run stays in sight
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
