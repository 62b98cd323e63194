"""The README is short and says what `make` does; the default run reaches a useful accuracy."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from running import CONFIGS, ROOT, run, spawn

from sinkablate.__main__ import COMMANDS

README = (ROOT / "README.md").read_text()


def test_make_trains_the_default_variant_and_runs_the_suite() -> None:
    recipe = subprocess.run(["make", "-n", "fit", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python -m sinkablate fit --config configs/gate_reg.yaml\n" in recipe
    assert "python -m pytest -n auto --dist loadfile\n" in recipe
    assert "\nmake fit " in README
    assert "\nmake test " in README


def test_the_readme_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= 110
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_every_config_is_in_the_table() -> None:
    table = (ROOT / "docs" / "mechanisms.md").read_text()
    assert [path.stem for path in CONFIGS.glob("*.yaml") if f"\n| `{path.stem}` |" not in table] == []


def test_every_variant_of_the_readme_is_a_config() -> None:
    for name, path in re.findall(r"\[`(\w+)`\]\((configs/[^)]+)\)", README):
        assert Path(path).stem == name
        assert (ROOT / path).exists()


def test_make_runs_what_the_page_of_the_two_algorithms_says() -> None:
    dry = ["make", "-n", "two_algorithms"]
    recipe = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "two_algorithms.md").read_text()
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 9
    assert [line.removeprefix(".venv/bin/") for line in recipe.splitlines() if "sinkablate" in line][-9:] == commands
    drawn = set(re.findall(r"docs/figures/(\S+)", recipe))
    elsewhere = {"two_stripes.png", "scenes.png", "report_page.png", "stripes_minilm.png", "edits_minilm.png"}
    elsewhere |= {"quantization_vit_small.png", "quantization_layers_vit_small.png", "token_maps_vit_small.png"}
    assert drawn == {name for name in figures_of_pages() if "/" not in name} - elsewhere


def test_make_draws_the_figures_of_the_paper_that_the_pages_show() -> None:
    dry = ["make", "-n", "paper", "WEIGHTS=weights.safetensors"]
    recipe = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"docs/figures/(paper/\S+)", recipe)) == {name for name in figures_of_pages() if "/" in name}


def figures_of_pages() -> set[str]:
    """The figures that the pages of the documentation show."""
    pages = (path.read_text() for path in (ROOT / "docs").glob("*.md"))
    return {figure for page in pages for figure in re.findall(r"\(figures/([^)]+)", page)}


def test_a_page_shows_every_figure() -> None:
    folder = ROOT / "docs" / "figures"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")} == figures_of_pages()


def test_help_lists_every_command_and_answers_as_a_process() -> None:
    shown = spawn("--help").succeeded().out
    listed = dict(re.findall(r"^  (\w+) +(\S.*)$", shown, re.MULTILINE))
    assert listed == COMMANDS
    assert all(len(line) > 20 for line in listed.values())


@pytest.mark.heavy
def test_the_default_run_learns_and_prints_its_results(tmp_path: Path) -> None:
    """Three of the twelve epochs are enough to reach an accuracy that a broken training loop would miss."""
    outcome = run(
        "fit",
        "--config",
        CONFIGS / "gate_reg.yaml",
        "--run_dir",
        tmp_path / "run",
        "--wandb.mode=disabled",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=3",
    ).succeeded()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["val/acc1"] >= 0.77
    for phrase in ("validation accuracy", "training images/s", "sinks per image", "token norm", "run directory:"):
        assert phrase in outcome.out
