"""Where the paired test and Welch's test lead to different findings about the same runs."""

from collections.abc import Iterator
from dataclasses import replace
from math import isfinite

from sinkablate.compare.comparison import Combination, Comparison, Difference, Primary
from sinkablate.compare.numbers import decimals, interval, number, p_is
from sinkablate.compare.statistics import ALPHA, Inference

TEST_NAMES: dict[Primary, str] = {"paired": "the paired test", "welch": "Welch's test"}


def under_the_other_test(of: Comparison) -> Comparison:
    """Return the same comparison with the other test as the primary one, before correction."""
    other: Primary = "welch" if of.primary == "paired" else "paired"
    return replace(
        of,
        primary=other,
        differences=tuple(replace(row, estimate=getattr(row, other)) for row in of.differences),
        combinations=tuple(
            replace(
                row,
                over_first=getattr(row, f"over_first_{other}"),
                over_second=getattr(row, f"over_second_{other}"),
                interaction=getattr(row, f"interaction_{other}"),
            )
            for row in of.combinations
        ),
    )


def disagreements(of: Comparison, other: Comparison) -> list[str]:
    """Return a sentence for every finding that the two tests do not share.

    A test without inference (too few pairs) does not disagree.

    Args:
        of: The comparison, after correction.
        other: `under_the_other_test(of)`, after correction.
    """
    primary, secondary = TEST_NAMES[of.primary], TEST_NAMES[other.primary]
    return [
        f"The two tests disagree about {name}: {finding} by {primary}, which is primary here; {another} by {secondary}."
        for name, finding, another in (*_differences(of, other), *_combinations(of, other))
    ]


def _differences(of: Comparison, other: Comparison) -> Iterator[tuple[str, str, str]]:
    """Yield the name of a cell and its finding under both tests, where they differ."""
    places = decimals(of)
    for row, twin in zip(of.differences, other.differences, strict=True):
        if row.higher is not twin.higher and isfinite(row.p_holm) and isfinite(twin.p_holm):
            yield row.cell, _verdict(row, places), _verdict(twin, places)
        equivalent = row.p_equivalent < ALPHA, twin.p_equivalent < ALPHA
        if len(set(equivalent)) > 1 and isfinite(row.p_equivalent) and isfinite(twin.p_equivalent):
            yield row.cell, equivalence_verdict(row, of.margin), equivalence_verdict(twin, of.margin)


def _verdict(row: Difference, places: int) -> str:
    """Describe a difference with its interval."""
    direction = "no difference is established" if row.higher is None else direction_word(row)
    return f"{direction} ({_shown(row.estimate, places)}, {p_is(row.p_holm)} after Holm)"


def equivalence_verdict(row: Difference, margin: float | None) -> str:
    """Describe the test of equivalence (TOST) within the margin."""
    if row.p_equivalent < ALPHA:
        return f"equivalent within ±{margin:g} (TOST, {p_is(row.p_equivalent)} after Holm)"
    return f"not shown to be equivalent within ±{margin:g}"


def direction_word(row: Difference) -> str:
    """Return better or worse for an established difference, or higher or lower without a better direction."""
    if row.better is not None:
        return "better" if row.better else "worse"
    return "higher" if row.higher else "lower"


def _combinations(of: Comparison, other: Comparison) -> Iterator[tuple[str, str, str]]:
    """Yield the names of two mechanisms and their finding under both tests, where they differ."""
    places = decimals(of)
    for row, twin in zip(of.combinations, other.combinations, strict=True):
        name = f"{row.first} and {row.second}"
        claims = {row.complementary, twin.complementary}
        if len(claims) > 1 and "not estimable" not in claims:
            yield name, _claim(row, places), _claim(twin, places)
        kinds = {row.kind, twin.kind}
        if len(kinds) > 1 and "not estimable" not in kinds:
            yield name, _kind(row, places), _kind(twin, places)


def _claim(row: Combination, places: int) -> str:
    """Describe whether two mechanisms are complementary, with the two intervals that decide."""
    return (
        f"complementary is {row.complementary} ({_shown(row.over_first, places)} over {row.first} alone, "
        f"{_shown(row.over_second, places)} over {row.second} alone, {p_is(row.p_complementary)} after Holm)"
    )


def _kind(row: Combination, places: int) -> str:
    """Describe the interaction of two mechanisms with its interval."""
    reading = "not distinguishable from additive" if row.kind == "undetermined" else row.kind
    return f"{reading} (interaction {_shown(row.interaction, places)}, {p_is(row.p_holm)} after Holm)"


def _shown(estimate: Inference, places: int) -> str:
    """Format an estimate with its interval."""
    return f"{number(estimate.value, places, sign=True)} {interval(estimate, places, sign=True)}"
