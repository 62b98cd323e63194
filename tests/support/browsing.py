"""A page opened from a file in a real browser without a network."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

CHROMIUM = shutil.which("chromium")


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
        """Click one square in the frequency panel, which has `of` blocks of `of` heads."""
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
