"""A browser, and the page of the shared report opened in it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Browsed


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
