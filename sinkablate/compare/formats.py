"""Comparisons as text: a terminal's tables, Markdown, LaTeX (booktabs), and JSON with everything."""

import io
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sinkablate.compare.comparison import Comparison, Difference
from sinkablate.compare.numbers import NA, decimals, interval, number, probability
from sinkablate.compare.statistics import Inference
from sinkablate.files.writing import json_text

Format = Literal["table", "json", "latex", "markdown"]
FOOTNOTE = "Intervals (95 %) and 80 % power are of one comparison; verdicts are after Holm. * primary"
MOST_ROWS, WIDEST, NARROWEST = 100, 10_000, 30
"""Of a table in a terminal; wider than any; no sentence is made narrower than this."""
NEEDS = r"% needs \usepackage{booktabs}"
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "±": r"$\pm$",
        "²": r"$^2$",
    }
)


@dataclass(frozen=True)
class Sheet:
    """A table of text; the first `names` columns are names, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int


def sheets(comparison: Comparison) -> list[Sheet]:
    """Cells, differences and, where two factors vary, interactions; columns without any number are left out."""
    made = [_cells(comparison), _differences(comparison)]
    return [*made, _combinations(comparison)] if comparison.combinations else made


def render(comparisons: Sequence[Comparison], form: Format, width: int = 160, *, wrap: bool = False) -> str:
    """Comparisons of one family as text.

    Args:
        comparisons: As `corrected` leaves them.
        form: What it is for.
        width: Of the terminal.
        wrap: Break the sentences below the tables between words to this width.
    """
    if form == "json":
        content = {"level": 0.95, "comparisons": [asdict(each) for each in comparisons]}
        return json_text(content, ensure_ascii=False)
    draw: Callable[[Comparison], str] = {
        "table": lambda each: _terminal(each, width, wrap=wrap),
        "markdown": _markdown,
        "latex": _latex,
    }[form]
    return "\n\n".join(draw(each) for each in comparisons)


def _cells(of: Comparison) -> Sheet:
    places = decimals(of)
    direction = "smaller" if of.lower_is_better else "larger"
    rows = [
        (
            *cell.levels,
            str(cell.n),
            number(cell.mean.value, places),
            number(cell.sd, places),
            interval(cell.mean, places),
            f"{cell.diverged} of {cell.ended}",
            str(cell.missing),
        )
        for cell in of.cells
    ]
    columns = (*of.factors, "n", "mean", "sd", "95 % interval", "diverged", "missing")
    lost = [any(cell.diverged for cell in of.cells), any(cell.missing for cell in of.cells)]
    wanted = [True] * (len(columns) - 2) + lost
    return _picked(f"{of.metric} ({direction} is better)", columns, rows, len(of.factors), wanted)


def _differences(of: Comparison) -> Sheet:
    places, paired = decimals(of), of.primary == "paired"

    def shown(found: Inference) -> str:
        value, span = number(found.value, places, sign=True), interval(found, places, sign=True)
        return value if span == NA else f"{value} {span}"

    columns: dict[str, Callable[[Difference], str]] = {
        "cell": lambda each: each.cell,
        f"paired{'*' * paired}": lambda each: shown(each.paired),
        "p paired": lambda each: probability(each.paired.p),
        f"Welch{'*' * (not paired)}": lambda each: shown(each.welch),
        "p Welch": lambda each: probability(each.welch.p),
        "p* Holm": lambda each: probability(each.p_holm),
        "pairs": lambda each: str(each.pairs),
        "r": lambda each: number(each.correlation, 2, sign=True),
        "g": lambda each: number(each.hedges_g, 2, sign=True),
        "p sign flip": lambda each: probability(each.p_sign_flip),
        "p TOST": lambda each: probability(each.p_equivalent),
        "p diverged": lambda each: probability(each.p_diverged),
        "80 % power": lambda each: number(each.detectable, places),
        "seeds": lambda each: NA if each.seeds_needed is None else str(each.seeds_needed),
    }
    rows = [tuple(write(each) for write in columns.values()) for each in of.differences]
    optional = {"p sign flip", "p TOST", "p diverged", "seeds"}
    wanted = [name not in optional or any(row[place] != NA for row in rows) for place, name in enumerate(columns)]
    return _picked(f"{of.metric}: difference to {of.baseline}", tuple(columns), rows, 1, wanted)


def _combinations(of: Comparison) -> Sheet:
    places = decimals(of)
    rows = [
        (
            each.first,
            each.second,
            number(each.interaction.value, places, sign=True),
            interval(each.interaction, places, sign=True),
            probability(each.p_holm),
            each.kind,
            probability(each.p_additive),
            probability(each.p_complementary),
            each.complementary,
            str(each.seeds),
            number(each.detectable, places),
            NA if each.seeds_needed is None else str(each.seeds_needed),
        )
        for each in of.combinations
    ]
    columns = (
        "first",
        "second",
        "interaction*",
        "95 % interval",
        "p* Holm",
        "reading",
        "p TOST",
        "p complementary",
        "complementary",
        "n",
        "80 % power",
        "seeds",
    )
    wanted = [
        name not in ("p TOST", "seeds") or any(row[place] != NA for row in rows) for place, name in enumerate(columns)
    ]
    return _picked(f"{of.metric}: two together", columns, rows, 2, wanted)


def _picked(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], names: int, wanted: Sequence[bool]
) -> Sheet:
    """The wanted columns."""
    kept = [place for place, keep in enumerate(wanted) if keep]
    texts = tuple(tuple(row[place] for place in kept) for row in (columns, *rows))
    return Sheet(title, texts[0], texts[1:], names)


def _terminal(of: Comparison, width: int, *, wrap: bool) -> str:
    """Tables, then notes and sentences."""
    console = Console(file=io.StringIO(), width=width, highlight=False, markup=False)
    for sheet in sheets(of):
        table = Table(title=Text(sheet.title), title_justify="left")
        for place, name in enumerate(sheet.columns):
            table.add_column(Text(name), justify="left" if place < sheet.names else "right", no_wrap=True)
        for row in sheet.rows[:MOST_ROWS]:
            table.add_row(*map(Text, row))
        fits = console.measure(table, options=console.options.update(width=WIDEST)).maximum <= width
        console.print(table if fits else _listed(sheet), soft_wrap=not fits)
        if len(sheet.rows) > MOST_ROWS:
            console.print(f"the first {MOST_ROWS} of {len(sheet.rows):,} rows; json, markdown and latex hold all")
    tables: str = console.file.getvalue()  # type: ignore[attr-defined]
    sentences = (f"{FOOTNOTE}. {of.family}.", *(f"Note: {note}." for note in of.notes), "", *of.sentences)
    broken = [
        "\n".join(
            textwrap.wrap(
                line, max(width, NARROWEST), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
        )
        if wrap
        else line
        for line in sentences
    ]
    lines = (*tables.splitlines(), *broken)
    return "\n".join(line.rstrip() for line in lines)


def _listed(sheet: Sheet) -> Text:
    """A table that is wider than the terminal, as a block of lines for each row: no number is cut."""
    wide = max(map(len, sheet.columns))
    blocks = []
    for row in sheet.rows[:MOST_ROWS]:
        names = ", ".join(f"{column} {value}" for column, value in zip(sheet.columns, row[: sheet.names], strict=False))
        numbers = zip(sheet.columns[sheet.names :], row[sheet.names :], strict=True)
        blocks.append("\n".join([f"  {names}", *(f"    {column:<{wide}}  {value}" for column, value in numbers)]))
    return Text("\n".join([sheet.title, *blocks]))


def _markdown(of: Comparison) -> str:
    """GitHub's tables, notes and sentences as lists."""
    parts = []
    for sheet in sheets(of):
        parts += [f"**{escaped_markdown(sheet.title)}**", markdown_table(sheet)]
    parts.append(escaped_markdown(f"{FOOTNOTE}. {of.family}."))
    parts += [
        "\n".join(f"- {escaped_markdown(line)}" for line in lines)
        for lines in ([f"Note: {note}." for note in of.notes], of.sentences)
        if lines
    ]
    return "\n\n".join(parts)


def escaped_markdown(text: str) -> str:
    """Text that Markdown shows as it is: names of runs and levels are whatever somebody called them."""
    return re.sub(r"[|*`]|<(?=\S)|(?<=\])\(|(?<=\])\[", r"\\\g<0>", " ".join(text.split()))


def markdown_table(sheet: Sheet) -> str:
    """A table as GitHub reads it."""
    head = [sheet.columns, tuple("---" if place < sheet.names else "---:" for place in range(len(sheet.columns)))]
    return "\n".join("| " + " | ".join(map(escaped_markdown, row)) + " |" for row in (*head, *sheet.rows))


def _latex(of: Comparison) -> str:
    """One `table` per sheet for booktabs; what was corrected, and the notes, are in the captions."""
    parts = [NEEDS]
    for sheet in sheets(of):
        about = (
            [sheet.title, f"{FOOTNOTE}. {of.family}"]
            if sheet.columns[0] in ("cell", "first")
            else [sheet.title, *of.notes]
        )
        parts.append(latex_table(sheet, ". ".join(about) + "."))
    parts.append("\n".join(f"% {' '.join(line.split())}" for line in of.sentences))
    return "\n\n".join(parts)


def latex_table(sheet: Sheet, caption: str) -> str:
    """A `table` for booktabs."""
    rows = [" & ".join(map(_escaped, row)) + r" \\" for row in (sheet.columns, *sheet.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * sheet.names}{'r' * (len(sheet.columns) - sheet.names)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _escaped(text: str) -> str:
    """For LaTeX; a number's sign becomes a minus."""
    text = " ".join(text.split())
    words = [
        f"${word}$" if word.startswith(("-", "+")) and word[1:2].isdigit() else word.translate(LATEX)
        for word in text.replace("[", "[ ").replace(", ", " , ").replace("]", " ]").split(" ")
    ]
    return " ".join(words).replace("[ ", "[").replace(" , ", ", ").replace(" ]", "]")
