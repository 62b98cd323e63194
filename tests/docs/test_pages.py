"""Every code block of README and docs: commands run, Python executes, YAML is read; links lead somewhere."""

import re
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pages import PAGES, PageRunner, blocks_of, small, small_sweeps
from PIL import Image
from running import CONFIGS, ROOT, run
from sharing import Once

from sinkablate.attention.scores import SCORES
from sinkablate.attention.sinks import SINKS
from sinkablate.config import mechanisms
from sinkablate.diagnostics import rules
from sinkablate.evaluate.tasks import TASKS
from sinkablate.intervene import edits

RUNS = {
    "vit_mini-gate_reg-s0": CONFIGS / "gate_reg.yaml",
    "toy_nop-nop-s0": CONFIGS / "toy" / "nop.yaml",
    "toy_broadcast-broadcast-s0": CONFIGS / "toy" / "broadcast.yaml",
}
"""Runs that a page may read without training them first."""
HEAVY = {
    "README.md",
    "docs/finetune.md",
    "docs/index.md",
    "docs/intervene.md",
    "docs/own_images.md",
    "docs/report.md",
    "docs/reproduce.md",
    "docs/sweep.md",
    "docs/training.md",
    "docs/two_algorithms.md",
}
"""Pages that take the most time; `make test-heavy` runs them."""
NOT_RUN = 24
"""How many blocks of all pages cannot run in a test; each says why above itself."""


def write_runs(root: Path) -> None:
    """The runs that pages read, trained for two steps, and a table of results."""
    for name, config in RUNS.items():
        run(*small(["fit", "--config", str(config), "--run_dir", str(root / "runs" / name)])).succeeded()


@pytest.fixture(scope="session")
def page_runs(once: Once) -> Path:
    return once("page_runs", write_runs)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Undo whatever a page registers."""
    registries: list[Any] = [SCORES, SINKS, mechanisms.SCORES, mechanisms.SINKS, rules._REGISTERED, edits._EDITS, TASKS]
    before = [copy(registry) for registry in registries]
    yield
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        (registry.update if isinstance(registry, dict) else registry.extend)(content)


@pytest.fixture
def runner(tmp_path: Path, image_folder: Path, page_runs: Path, monkeypatch: pytest.MonkeyPatch) -> PageRunner:
    """A folder with all that the pages name: configs, sweeps, images, runs and a table."""
    monkeypatch.chdir(tmp_path)
    for name in ("configs", "slurm", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    small_sweeps(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "imagenet").symlink_to(image_folder)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, path in enumerate(sorted(image_folder.rglob("*.png"))[:2]):
        Image.open(path).resize((64, 64)).save(photos / f"{number}.png")
    pl.DataFrame(
        [
            {"gate": gate, "registers": registers, "seed": seed, "val/acc1": 0.8 + 0.01 * (seed * 7 % 5) + gain}
            for gate, registers, gain in (
                ("none", 0, 0.0),
                ("none", 4, 0.01),
                ("headwise", 0, 0.02),
                ("headwise", 4, 0.04),
            )
            for seed in range(5)
        ]
    ).write_csv(tmp_path / "results.csv")
    return PageRunner(tmp_path, monkeypatch, page_runs)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.heavy if page in HEAVY else ()) for page in PAGES if blocks_of(page)]
)
def test_every_block_runs_in_the_order_of_the_page(page: str, runner: PageRunner) -> None:
    for block in blocks_of(page):
        try:
            runner.execute(block)
        except Exception as error:
            error.add_note(f"{page}, the block at line {block.line}")
            raise


def test_blocks_that_cannot_run_are_few_and_counted() -> None:
    marked = [(page, block.line) for page in PAGES for block in blocks_of(page) if block.not_run is not None]
    assert len(marked) == NOT_RUN, marked
    comments = sum((ROOT / page).read_text().count("<!-- not run:") for page in PAGES)
    assert comments == NOT_RUN, "a comment `not run` that stands above no block"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)", text):
        path = (ROOT / page).parent.joinpath(target) if target else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor.removeprefix("#") in anchors(path), f"{target}{anchor}"


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    headings = re.findall(r"^#+ +(.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
