"""The tables of a comparison as text: cells, differences and combinations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sinkablate.compare.comparison import Combination, Comparison, Difference
from sinkablate.compare.numbers import NA, decimals, interval, number, probability
from sinkablate.compare.statistics import Inference


@dataclass(frozen=True)
class Sheet:
    """A table of text. The first `name_columns` columns contain names, the others numbers."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    name_columns: int


def sheets(comparison: Comparison) -> list[Sheet]:
    """Return the tables of cells, differences and, where two factors vary, combinations.

    Optional columns that contain no number are left out.
    """
    tables = [_cells(comparison), _differences(comparison)]
    return [*tables, _combinations(comparison)] if comparison.combinations else tables


def _cells(comparison: Comparison) -> Sheet:
    places = decimals(comparison)
    direction = {False: " (larger is better)", True: " (smaller is better)", None: ""}[comparison.lower_is_better]
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
        for cell in comparison.cells
    ]
    columns = (*comparison.factors, "n", "mean", "sd", "95 % interval", "diverged", "missing")
    optional = [any(cell.diverged for cell in comparison.cells), any(cell.missing for cell in comparison.cells)]
    shown = [True] * (len(columns) - 2) + optional
    return _selected(f"{comparison.metric}{direction}", columns, rows, len(comparison.factors), shown)


def _differences(comparison: Comparison) -> Sheet:
    places, paired = decimals(comparison), comparison.primary == "paired"

    def with_interval(estimate: Inference) -> str:
        value, span = number(estimate.value, places, sign=True), interval(estimate, places, sign=True)
        return value if span == NA else f"{value} {span}"

    columns: dict[str, Callable[[Difference], str]] = {
        "cell": lambda row: row.cell,
        f"paired{'*' * paired}": lambda row: with_interval(row.paired),
        "p paired": lambda row: probability(row.paired.p),
        f"Welch{'*' * (not paired)}": lambda row: with_interval(row.welch),
        "p Welch": lambda row: probability(row.welch.p),
        "p* Holm": lambda row: probability(row.p_holm),
        "pairs": lambda row: str(row.pairs),
        "r": lambda row: number(row.correlation, 2, sign=True),
        "g": lambda row: number(row.hedges_g, 2, sign=True),
        "p sign flip": lambda row: probability(row.p_sign_flip),
        "p TOST": lambda row: probability(row.p_equivalent),
        "p diverged": lambda row: probability(row.p_diverged),
        "80 % power": lambda row: number(row.detectable, places),
        "seeds": lambda row: NA if row.seeds_needed is None else str(row.seeds_needed),
    }
    rows = [tuple(text(row) for text in columns.values()) for row in comparison.differences]
    optional = {"p sign flip", "p TOST", "p diverged", "seeds"}
    title = f"{comparison.metric}: difference from {comparison.baseline}"
    return _selected(title, tuple(columns), rows, 1, _nonempty(tuple(columns), rows, optional))


def _combinations(comparison: Comparison) -> Sheet:
    places = decimals(comparison)
    columns: dict[str, Callable[[Combination], str]] = {
        "first": lambda row: row.first,
        "second": lambda row: row.second,
        "interaction*": lambda row: number(row.interaction.value, places, sign=True),
        "95 % interval": lambda row: interval(row.interaction, places, sign=True),
        "p* Holm": lambda row: probability(row.p_holm),
        "reading": lambda row: row.kind,
        "p TOST": lambda row: probability(row.p_additive),
        "p complementary": lambda row: probability(row.p_complementary),
        "complementary": lambda row: row.complementary,
        "n": lambda row: str(row.seeds),
        "80 % power": lambda row: number(row.detectable, places),
        "seeds": lambda row: NA if row.seeds_needed is None else str(row.seeds_needed),
    }
    rows = [tuple(text(row) for text in columns.values()) for row in comparison.combinations]
    sideless = comparison.lower_is_better is None
    shown = _nonempty(tuple(columns), rows, {"p TOST", "seeds"} | ({"p complementary"} if sideless else set()))
    shown[list(columns).index("complementary")] = not sideless
    return _selected(f"{comparison.metric}: combinations of two", tuple(columns), rows, 2, shown)


def _nonempty(columns: Sequence[str], rows: Sequence[Sequence[str]], optional: set[str]) -> list[bool]:
    """Return which columns to show: all but the optional ones that contain no number."""
    return [name not in optional or any(row[index] != NA for row in rows) for index, name in enumerate(columns)]


def _selected(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], names: int, shown: Sequence[bool]
) -> Sheet:
    """Return a sheet of only the columns to show."""
    kept = [index for index, show in enumerate(shown) if show]
    texts = tuple(tuple(row[index] for index in kept) for row in (columns, *rows))
    return Sheet(title, texts[0], texts[1:], names)
