"""Tables as GitHub's Markdown and as LaTeX (booktabs)."""

import re

from sinkablate.compare.sheets import Sheet

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


def escaped_markdown(text: str) -> str:
    """Return text that Markdown shows literally: names of runs and levels may contain its control characters."""
    return re.sub(r"[|*`]|<(?=\S)|(?<=\])\(|(?<=\])\[", r"\\\g<0>", " ".join(text.split()))


def markdown_table(sheet: Sheet) -> str:
    """Return a table in GitHub's Markdown."""
    rule = tuple("---" if index < sheet.name_columns else "---:" for index in range(len(sheet.columns)))
    rows = (sheet.columns, rule, *sheet.rows)
    return "\n".join("| " + " | ".join(map(escaped_markdown, row)) + " |" for row in rows)


def latex_table(sheet: Sheet, caption: str) -> str:
    """Return a LaTeX `table` that uses booktabs."""
    rows = [" & ".join(map(_escaped_latex, row)) + r" \\" for row in (sheet.columns, *sheet.rows)]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped_latex(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * sheet.name_columns}{'r' * (len(sheet.columns) - sheet.name_columns)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _escaped_latex(text: str) -> str:
    """Return text for LaTeX; the sign of a number is typeset in math mode."""
    text = " ".join(text.split())
    words = [
        f"${word}$" if word.startswith(("-", "+")) and word[1:2].isdigit() else word.translate(LATEX)
        for word in text.replace("[", "[ ").replace(", ", " , ").replace("]", " ]").split(" ")
    ]
    return " ".join(words).replace("[ ", "[").replace(" , ", ", ").replace(" ]", "]")
