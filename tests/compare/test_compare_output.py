"""Output of `compare` on a terminal and as JSON, LaTeX and Markdown."""

import json
import re
from pathlib import Path

import pytest
from run_tables import as_json, compared, table
from running import forked


def test_the_terminal_shows_tables_and_sentences(tmp_path: Path) -> None:
    outcome = compared(tmp_path, table(), "--baseline", "gate=none,registers=0", "--pair-by", "seed", "--detect", ".01")
    for pattern in (
        "gate=headwise and registers=4: complementary is supported",
        "not distinguishable from additive",
        r"one of 0.01 needs \d+( to \d+)? seeds",
        "Holm over 5 differences",
        "The smallest number of pairs behind a difference is 5, which is few",
        "2.4 for pairs without correlation",
        "All interactions of gate and registers together",
    ):
        assert re.search(pattern, outcome.succeeded().out), pattern


def test_json_is_complete_and_also_written_by_out(tmp_path: Path) -> None:
    comparison = as_json(compared(tmp_path, table(), "--format", "json", "--out", tmp_path / "comparison.json"))
    assert comparison == json.loads((tmp_path / "comparison.json").read_text())["comparisons"][0]
    assert {"cells", "differences", "combinations", "omnibus", "notes", "sentences", "family"} <= set(comparison)
    assert comparison["combinations"][0]["kind"] == "undetermined"
    assert comparison["differences"][0]["p_sign_flip"] is None


def test_a_terminal_shows_only_the_first_rows_of_a_long_table(tmp_path: Path) -> None:
    long_table = table(gates=("none", *(f"gate{number:03d}" for number in range(100))), seeds=2)
    text = compared(tmp_path, long_table).succeeded().out
    assert "the first 100 of 202 rows" in text
    assert "the first 100 of 201 rows" in text
    assert "gate060" not in text[: text.index("combinations of two")]
    assert compared(tmp_path, long_table, "--format=markdown").succeeded().out.count("| gate099 |") == 2
    assert len(as_json(compared(tmp_path, long_table, "--format=json"))["cells"]) == 202


def test_latex_and_markdown_are_valid_tables(tmp_path: Path) -> None:
    latex = compared(tmp_path, table(), "--format=latex").succeeded().out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    for columns, body in re.findall(r"\\begin{tabular}{(\w+)}\n\\toprule\n(.*?)\\bottomrule", latex, re.DOTALL):
        for row in body.replace("\\midrule\n", "").splitlines():
            assert len(re.split(r"(?<!\\)&", row)) == len(columns)
            assert not re.search(r"(?<!\\)[%_#]", row)
    markdown = compared(tmp_path, table(), "--format=markdown").succeeded().out
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_no_number_is_truncated_on_a_narrow_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    assert "…" not in narrow
    numbers = re.findall(r"[+-]0\.\d+ \[[^]]+\]", wide[: wide.index("Intervals (95")])
    assert len(numbers) == 10
    assert all(number in narrow for number in numbers)


def test_an_existing_file_is_not_replaced(tmp_path: Path) -> None:
    existing = tmp_path / "sweep.yaml"
    existing.write_text("name: mine\n")
    outcome = compared(tmp_path, table(), "--out", existing)
    assert (outcome.code, "already exists; choose" in outcome.err, existing.read_text()) == (2, True, "name: mine\n")
    own = tmp_path / "table.txt"
    compared(tmp_path, table(), "--out", own).succeeded()
    written = own.read_text()
    assert compared(tmp_path, table(), "--out", own, "--format", "json").code == 2
    assert own.read_text() == written
    compared(tmp_path, table(), "--out", own, "--format", "json", "--overwrite").succeeded()
    assert own.read_text().startswith("{")


def test_compare_runs_in_a_separate_process(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "runs.csv")
    outcome = forked(
        "compare", tmp_path / "runs.csv", "--metric=val/acc1", "--factors=gate,registers", "--pair-by=seed"
    )
    assert "complementary is supported" in outcome.succeeded().out
