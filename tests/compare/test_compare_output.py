"""What `compare` prints and writes: terminal, JSON, LaTeX and Markdown."""

import json
import re
from pathlib import Path

import pytest
from run_tables import as_json, compared, table
from running import forked


def test_the_table_and_its_sentences(tmp_path: Path) -> None:
    said = compared(tmp_path, table(), "--baseline", "gate=none,registers=0", "--pair-by", "seed", "--detect", ".01")
    for part in (
        "gate=headwise and registers=4: complementary is supported",
        "not distinguishable from additive",
        r"one of 0.01 needs \d+( to \d+)? seeds",
        "Holm over 5 differences",
        "The smallest number of pairs behind a difference is 5, which is few",
        "2.4 for pairs without correlation",
        "All interactions of gate and registers together",
    ):
        assert re.search(part, said.succeeded().out), part


def test_json_holds_everything_and_out_the_same(tmp_path: Path) -> None:
    found = as_json(compared(tmp_path, table(), "--format", "json", "--out", tmp_path / "said.json"))
    assert found == json.loads((tmp_path / "said.json").read_text())["comparisons"][0]
    assert {"cells", "differences", "combinations", "omnibus", "notes", "sentences", "family"} <= set(found)
    assert found["combinations"][0]["kind"] == "undetermined"
    assert found["differences"][0]["p_sign_flip"] is None


def test_a_terminal_shows_the_first_rows_of_a_long_table_and_says_so(tmp_path: Path) -> None:
    many = table(gates=("none", *(f"gate{number:03d}" for number in range(100))), seeds=2)
    said = compared(tmp_path, many).succeeded().out
    assert "the first 100 of 202 rows" in said
    assert "the first 100 of 201 rows" in said
    assert "gate060" not in said[: said.index("two together")]
    assert compared(tmp_path, many, "--format=markdown").succeeded().out.count("| gate099 |") == 2
    assert len(as_json(compared(tmp_path, many, "--format=json"))["cells"]) == 202


def test_latex_and_markdown_are_whole_tables(tmp_path: Path) -> None:
    latex = compared(tmp_path, table(), "--format=latex").succeeded().out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3
    for head, body in re.findall(r"\\begin{tabular}{(\w+)}\n\\toprule\n(.*?)\\bottomrule", latex, re.DOTALL):
        for row in body.replace("\\midrule\n", "").splitlines():
            assert len(re.split(r"(?<!\\)&", row)) == len(head)
            assert not re.search(r"(?<!\\)[%_#]", row)
    markdown = compared(tmp_path, table(), "--format=markdown").succeeded().out
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE):
        assert len({line.count("|") for line in block.splitlines()}) == 1


def test_no_number_is_cut_where_the_terminal_is_narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    monkeypatch.setenv("COLUMNS", "60")
    narrow = compared(tmp_path, table(), "--margin", ".01").succeeded().out
    assert "…" not in narrow
    numbers = re.findall(r"[+-]0\.\d+ \[[^]]+\]", wide[: wide.index("Intervals (95")])
    assert len(numbers) == 10
    assert all(number in narrow for number in numbers)


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    kept = tmp_path / "sweep.yaml"
    kept.write_text("name: mine\n")
    refused = compared(tmp_path, table(), "--out", kept)
    assert (refused.code, "already exists; choose" in refused.err, kept.read_text()) == (2, True, "name: mine\n")
    compared(tmp_path, table(), "--out", kept, "--overwrite").succeeded()
    assert "val/acc1" in kept.read_text()


def test_it_is_a_process_too(tmp_path: Path) -> None:
    table().write_csv(tmp_path / "runs.csv")
    done = forked("compare", tmp_path / "runs.csv", "--metric=val/acc1", "--factors=gate,registers", "--pair-by=seed")
    assert "complementary is supported" in done.succeeded().out
