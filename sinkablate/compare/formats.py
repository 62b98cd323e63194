"""Comparisons as text: tables for a terminal, Markdown, LaTeX, and JSON with every number."""

import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sinkablate.compare.comparison import Comparison
from sinkablate.compare.markup import NEEDS, escaped_markdown, latex_table, markdown_table
from sinkablate.compare.sheets import Sheet, sheets
from sinkablate.files.writing import json_text

Format = Literal["table", "json", "latex", "markdown"]
FOOTNOTE = (
    "Intervals (95 %) and 80 % power are for one comparison at a time; verdicts are after Holm's correction. "
    "* primary test"
)
MOST_ROWS = 100
"""Largest number of rows of a table shown in a terminal."""
WIDEST, NARROWEST = 10_000, 30
"""Widths in characters: one that no table exceeds, and the narrowest to which sentences are wrapped."""


def render(comparisons: Sequence[Comparison], form: Format, width: int = 160, *, wrap: bool = False) -> str:
    """Return comparisons of one family as text.

    Args:
        comparisons: Comparisons that `corrected` has completed.
        form: Format of the text.
        width: Width of the terminal, in characters.
        wrap: Whether the sentences below the tables are wrapped to this width.
    """
    if form == "json":
        content = {"level": 0.95, "comparisons": [asdict(comparison) for comparison in comparisons]}
        return json_text(content, ensure_ascii=False)
    draw: Callable[[Comparison], str] = {
        "table": lambda comparison: _terminal(comparison, width, wrap=wrap),
        "markdown": _markdown,
        "latex": _latex,
    }[form]
    return "\n\n".join(draw(comparison) for comparison in comparisons)


def is_rendered(path: Path) -> bool:
    """Return whether a file holds text that `render` wrote in any format, which `compare` may replace."""
    try:
        text = " ".join(path.read_text(encoding="utf-8").split())
    except (OSError, ValueError):
        return False
    return "verdicts are after Holm" in text or text.startswith('{ "level": 0.95, "comparisons":')


def _terminal(comparison: Comparison, width: int, *, wrap: bool) -> str:
    """Return tables, then notes and sentences."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    for sheet in sheets(comparison):
        table = Table(title=Text(sheet.title), title_justify="left")
        for index, name in enumerate(sheet.columns):
            table.add_column(Text(name), justify="left" if index < sheet.name_columns else "right", no_wrap=True)
        for row in sheet.rows[:MOST_ROWS]:
            table.add_row(*map(Text, row))
        fits = console.measure(table, options=console.options.update(width=WIDEST)).maximum <= width
        console.print(table if fits else _row_blocks(sheet), soft_wrap=not fits)
        if len(sheet.rows) > MOST_ROWS:
            console.print(
                f"the first {MOST_ROWS} of {len(sheet.rows):,} rows; --format json, markdown or latex shows all of them"
            )
    tables: str = console.file.getvalue()  # type: ignore[attr-defined]
    sentences = [
        f"{FOOTNOTE}. {comparison.family}.",
        *(f"Note: {note}." for note in comparison.notes),
        "",
        *comparison.sentences,
    ]
    if wrap:
        sentences = [_wrapped(sentence, width) for sentence in sentences]
    return "\n".join(line.rstrip() for line in (*tables.splitlines(), *sentences))


def _wrapped(sentence: str, width: int) -> str:
    """Wrap a sentence to a width between words, indenting every line but the first."""
    columns = max(width, NARROWEST)
    lines = textwrap.wrap(sentence, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def _row_blocks(sheet: Sheet) -> Text:
    """Return a table that is wider than the terminal as one block of lines per row, so that no number is truncated."""
    wide = max(map(len, sheet.columns))
    blocks = []
    for row in sheet.rows[:MOST_ROWS]:
        names = ", ".join(
            f"{column} {value}" for column, value in zip(sheet.columns, row[: sheet.name_columns], strict=False)
        )
        numbers = zip(sheet.columns[sheet.name_columns :], row[sheet.name_columns :], strict=True)
        blocks.append("\n".join([f"  {names}", *(f"    {column:<{wide}}  {value}" for column, value in numbers)]))
    return Text("\n".join([sheet.title, *blocks]))


def _markdown(comparison: Comparison) -> str:
    """Return tables in GitHub's Markdown, with notes and sentences as lists."""
    parts = []
    for sheet in sheets(comparison):
        parts += [f"**{escaped_markdown(sheet.title)}**", markdown_table(sheet)]
    parts.append(escaped_markdown(f"{FOOTNOTE}. {comparison.family}."))
    parts += [
        "\n".join(f"- {escaped_markdown(line)}" for line in lines)
        for lines in ([f"Note: {note}." for note in comparison.notes], comparison.sentences)
        if lines
    ]
    return "\n\n".join(parts)


def _latex(comparison: Comparison) -> str:
    """Return one LaTeX `table` per sheet; the captions contain the correction and the notes."""
    parts = [NEEDS]
    for sheet in sheets(comparison):
        tested = sheet.columns[0] in ("cell", "first")
        about = [sheet.title, f"{FOOTNOTE}. {comparison.family}"] if tested else [sheet.title, *comparison.notes]
        parts.append(latex_table(sheet, ". ".join(about) + "."))
    parts.append("\n".join(f"% {' '.join(line.split())}" for line in comparison.sentences))
    return "\n\n".join(parts)
