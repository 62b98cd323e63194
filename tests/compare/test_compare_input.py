"""`compare` reads the CSV dialects of spreadsheets, and refuses other files in one line."""

from pathlib import Path

import polars as pl
import pytest
from running import Outcome, assert_refused, run

TABLE = "gate,seed,acc\n" + "".join(
    f"{gate},{seed},{0.5 + 0.1 * level + 0.01 * seed + 0.003 * seed * level:.3f}\n"
    for level, gate in enumerate(("none", "head"))
    for seed in range(4)
)


def compare(path: Path, *args: str) -> Outcome:
    """Compare two gates by accuracy."""
    return run("compare", path, "--metric", "acc", "--factors", "gate", *args)


def csv(root: Path, content: str | bytes) -> Path:
    """Write a CSV file; returns its path."""
    path = root / "runs.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


READ: dict[str, str | bytes] = {
    "semicolons": TABLE.replace(",", ";"),
    "tabs": TABLE.replace(",", "\t"),
    "UTF-16": TABLE.encode("utf-16"),
    "UTF-16 with semicolons": TABLE.replace(",", ";").encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + TABLE.encode(),
    "Windows line ends": TABLE.replace("\n", "\r\n"),
    "spaces in the heading": TABLE.replace("gate,seed,acc", " gate , seed, acc "),
    "spaces before values": TABLE.replace(",", ", "),
    "quotes": TABLE.replace("none", '"none"'),
    "no last newline": TABLE.rstrip(),
}


@pytest.mark.parametrize("name", READ)
def test_every_dialect_gives_the_same_result(name: str, tmp_path: Path) -> None:
    plain = compare(csv(tmp_path, TABLE)).succeeded()
    assert compare(csv(tmp_path, READ[name])).succeeded().out == plain.out


REFUSED: dict[str, tuple[str | bytes, list[str]]] = {
    "decimal commas": (TABLE.replace(",", ";").replace("0.", "0,"), ["row 1", "'0,500'", "0.500"]),
    "percent signs": (TABLE.replace(".500", ".500 %"), ["row 1", "0.500 %", "percent sign"]),
    "two columns of one name": (TABLE.replace("gate,seed,acc", "acc,seed,acc"), ["two columns", "acc"]),
    "two names that differ in spaces": (TABLE.replace("gate,seed,acc", "acc ,seed,acc"), ["two columns", "acc"]),
    "two columns without a name": (TABLE.replace("gate,seed,acc", ",,acc"), ["two columns", "first line"]),
    "misspelled": (TABLE.replace("acc", "accc"), ["metric=acc", "did you mean accc"]),
    "Latin-1": (TABLE.replace("head", "tête").encode("latin1"), ["UTF-8"]),
    "UTF-16 without a byte order mark": (TABLE.encode("utf-16-le"), ["UTF-8"]),
    "ragged": (TABLE + "a,b,c,d,e\n", ["as many values"]),
    "only column names": ("gate,seed,acc\n", ["no rows"]),
    "an empty file": ("", ["no rows"]),
    "blank lines": ("\n\n", ["no rows"]),
    "bytes": (bytes(range(256)), ["UTF-8"]),
    "a Parquet file": (b"PAR1" + bytes(60), ["NUL"]),
    "words": ("hello world\n", ["no rows"]),
    "text": (TABLE.replace(".5", ".x"), ["row 1"]),
    "all NaN": ("gate,seed,acc\nnone,0,nan\nhead,0,nan\n", ["finite"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unreadable_table_is_refused(name: str, tmp_path: Path) -> None:
    content, phrases = REFUSED[name]
    assert_refused(compare(csv(tmp_path, content)), *phrases)


@pytest.mark.parametrize("damage", [b"", b"PAR1", bytes(range(256)) * 9])
def test_a_damaged_parquet_file_is_named(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(damage)
    outcome = compare(path)
    assert outcome.code == 2
    assert "runs.parquet: cannot be read" in outcome.err


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path, out = csv(tmp_path, TABLE), Path("/proc/self/compared")
    outcome = compare(path, "--out", str(out))
    assert outcome.code == 2
    assert outcome.err.startswith(f"error: {out} cannot be written")


def test_different_numbers_of_threads_are_noted(tmp_path: Path) -> None:
    frame = pl.read_csv(TABLE.encode())
    for counts, noted in (([2] * 8, False), ([1] * 4 + [2] * 4, True)):
        frame.with_columns(pl.Series("threads", counts)).write_csv(tmp_path / "runs.csv")
        out = compare(tmp_path / "runs.csv").succeeded().out
        assert ("Note: the runs used different numbers of CPU threads (1; 2)" in out) == noted


def test_the_required_number_of_seeds_is_not_estimated_from_two_pairs(tmp_path: Path) -> None:
    two = "".join(line + "\n" for line in TABLE.splitlines() if ",2," not in line and ",3," not in line)
    out = compare(csv(tmp_path, two), "--detect", "0.01").succeeded().out
    assert "is unknown for 1 of 1: no spread, fewer than three pairs" in out
    out = compare(csv(tmp_path, TABLE), "--detect", "0.01").succeeded().out
    assert "seeds per cell, estimated from the spread of 4 pairs" in out


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_lines_fit_the_terminal_without_broken_words(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = csv(tmp_path, TABLE)
    unwrapped = compare(path, "--format", "markdown").succeeded().out
    monkeypatch.setenv("COLUMNS", str(width))
    out = compare(path).succeeded().out
    assert max(map(len, out.splitlines())) <= width
    assert set(out.split("Note: ")[-1].split()) <= {word.replace("\\", "") for word in unwrapped.split()}
