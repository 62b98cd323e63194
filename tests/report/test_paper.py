"""`report --paper` writes the figures of the paper that its inputs allow, and names the others with their command."""

from pathlib import Path

import polars as pl
import pytest
from reporting import report
from running import heads as measured
from running import run

from sinkablate.figures.sinks import ONE_COLUMN, TWO_COLUMNS
from sinkablate.report.paper import FIGURES
from sinkablate.report.runs import read_runs

pytestmark = pytest.mark.heavy

NEEDED = {"figure_4_9_handoff", "figure_5_10_11_frequency", "figure_5_10_11_entropy", "figure_6_8_12_13_atlas"}


@pytest.fixture(scope="module")
def written(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    run("diagnose", "--run", finished, "--out", root / "diagnosis", "--limit", "4").succeeded()
    outcome = report(
        root / "out", finished, root / "diagnosis", "--paper", "--maps", "0", "--rule", "adaptive"
    ).succeeded()
    (root / "stderr").write_text(outcome.err)
    return root


def test_the_figures_are_numbered_and_the_missing_ones_are_named_with_a_command(written: Path) -> None:
    files = {path.name for path in (written / "out" / "paper").iterdir()}
    names = {figure.file for figure in FIGURES if f"{figure.file}.pdf" in files}
    assert names >= NEEDED
    assert files == {f"{name}.{kind}" for name in names for kind in ("pdf", "png", "csv")}
    for figure in FIGURES:
        line = f"{figure.file}: no input holds its data; {figure.command}"
        assert (line in (written / "stderr").read_text().splitlines()) == (figure.file not in names)


def test_the_numbers_of_a_figure_agree_with_the_tables(written: Path, finished: Path) -> None:
    paper = written / "out" / "paper"
    heads = measured(finished, 6).sort("block", "head")
    frequency = pl.read_csv(paper / "figure_5_10_11_frequency.csv").sort("block", "head")
    assert frequency["frequency"].to_list() == pytest.approx(heads["adaptive_frequency"].to_list())
    atlas = pl.read_csv(paper / "figure_6_8_12_13_atlas.csv").sort("block", "head")
    gray = atlas["label"] == "none"
    for part, prefix in ((gray, "median_"), (~gray, "adaptive_event_median_")):
        for name in ("routed_stable_rank", "ratio_out", "ratio_head"):
            expected = heads.filter(part)[f"{prefix}{name}"].to_list()
            assert atlas.filter(part)[name].to_list() == pytest.approx(expected, nan_ok=True)
    assert "stable_rank" not in atlas.columns
    dominant = pl.read_csv(paper / "figure_4_9_handoff.csv").filter(panel="dominant")
    by_block = dominant.group_by("block").agg(pl.col("mean").sum())
    assert by_block["mean"].to_list() == pytest.approx([1.0] * len(by_block))


def test_the_figures_have_the_widths_of_columns(written: Path) -> None:
    runs, _ = read_runs([str(written / "diagnosis")])
    for figure in FIGURES:
        drawn = figure.draw(runs, "causal")
        assert drawn is None or drawn[0].get_figwidth() in (ONE_COLUMN, TWO_COLUMNS), figure.file


def test_a_report_without_the_option_has_no_figures_of_the_paper(written: Path, tmp_path: Path) -> None:
    report(tmp_path / "out", written / "diagnosis", "--maps", "0").succeeded()
    assert not (tmp_path / "out" / "paper").exists()
