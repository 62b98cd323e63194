"""The result of a comparison of one metric, as plain values."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.compare.statistics import Inference

Primary = Literal["paired", "welch"]
Kind = Literal[
    "synergistic", "sub-additive", "above additive", "below additive", "additive", "undetermined", "not estimable"
]
Claim = Literal["supported", "not supported", "not estimable"]


@dataclass(frozen=True)
class Cell:
    """The runs of one combination of levels.

    Attributes:
        name: Name of the cell, as in `gate=none, registers=0`.
        levels: Its level of each factor.
        runs: Number of runs in the table.
        diverged: Number of runs that diverged.
        missing: Number of runs that did not diverge and have no finite metric.
        n: Number of the remaining runs.
        seeds: Their seeds.
        mean: Mean over these runs, with its interval.
        sd: Their sample standard deviation.
        nested: Number of values averaged into each run.
    """

    name: str
    levels: tuple[str, ...]
    runs: int
    diverged: int
    missing: int
    n: int
    seeds: tuple[str, ...]
    mean: Inference
    sd: float
    nested: int = 1

    @property
    def ended(self) -> int:
        """Number of runs that are known to have diverged or not."""
        return self.runs - self.missing


@dataclass(frozen=True)
class Difference:
    """A cell minus the baseline, in the metric's units, whichever direction is better.

    Attributes:
        cell: Name of the cell.
        baseline: Name of the baseline.
        estimate: The primary one of `paired` and `welch`; the attributes below belong to it.
        paired: Estimate from runs paired by seed.
        welch: Estimate from independent runs (Welch's test).
        pairs: Number of seeds that both cells have.
        correlation: Pearson's r of the pairs.
        hedges_g: Standardized difference, corrected for small-sample bias.
        p_holm: p-value of no difference, after Holm.
        p_sign_flip: p-value of the sign-flip test; NaN with fewer than 6 or more than 50 pairs, and for images.
        p_equivalent: p-value of the two one-sided tests (TOST) within the margin, after Holm; NaN without a margin.
        p_diverged: p-value of Fisher's exact test on the shares of diverged runs, after Holm; NaN if none diverged.
        detectable: Effect that is detected with 80 % power at this n and spread, before Holm.
        seeds_needed: Number of seeds that detect the effect the user named; None without one or if it is unknown.
        higher: True if higher and False if lower than the baseline at 5 % after Holm; None if neither is established.
        better: The same as better and worse; None also for a metric without a better direction.
    """

    cell: str
    baseline: str
    estimate: Inference
    paired: Inference
    welch: Inference
    pairs: int
    correlation: float
    hedges_g: float
    p_holm: float
    p_sign_flip: float
    p_equivalent: float
    p_diverged: float
    detectable: float
    seeds_needed: int | None
    higher: bool | None
    better: bool | None


@dataclass(frozen=True)
class Combination:
    """Two levels of two factors together, with the other factors at the baseline's levels.

    Attributes:
        first: Level of the first factor, as in `gate=headwise`.
        second: Level of the second factor.
        cell: Name of the cell that has both.
        over_first: The cell with both minus the cell with the first alone.
        over_second: The cell with both minus the cell with the second alone.
        over_first_paired: `over_first` from runs paired by seed.
        over_first_welch: `over_first` from independent runs.
        over_second_paired: `over_second` from runs paired by seed.
        over_second_welch: `over_second` from independent runs.
        p_complementary: p-value of the intersection-union test that both are better, two-sided, after Holm.
        complementary: Whether both are better at 5 %; not estimable for a metric without a better direction.
        interaction: (both - first) - (second - neither), the primary one of the two estimates below.
        interaction_paired: Estimate from runs paired by seed.
        interaction_welch: Estimate from independent runs.
        seeds: Number of seeds that all four cells have (paired), or of the smallest of them.
        p_holm: p-value of no interaction, after Holm.
        p_additive: p-value of TOST that the interaction is zero within the margin, after Holm; NaN without a margin.
        kind: Reading of the interaction. Synergistic: better than the sum of the two effects. Above or below additive:
            higher or lower than this sum, for a metric without a better direction. Additive: only by TOST.
        detectable: Interaction that is detected with 80 % power, before Holm.
        seeds_needed: Number of seeds that detect the effect the user named; None without one or if it is unknown.
    """

    first: str
    second: str
    cell: str
    over_first: Inference
    over_second: Inference
    over_first_paired: Inference
    over_first_welch: Inference
    over_second_paired: Inference
    over_second_welch: Inference
    p_complementary: float
    complementary: Claim
    interaction: Inference
    interaction_paired: Inference
    interaction_welch: Inference
    seeds: int
    p_holm: float
    p_additive: float
    kind: Kind
    detectable: float
    seeds_needed: int | None


@dataclass(frozen=True)
class Omnibus:
    """An F-test that all interaction contrasts of two factors are zero."""

    factors: tuple[str, str]
    test: str
    f: float
    df: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Comparison:
    """The whole comparison of one metric.

    Attributes:
        metric: Column that was compared.
        factors: Columns whose levels make the cells.
        baseline: Name of the baseline.
        pair_by: Column that pairs the runs; None for unpaired runs.
        primary: Test that decides whether there is a difference.
        lower_is_better: Whether smaller values are better; None for a metric without a better direction.
        family: What Holm's correction covers, in words.
        margin: Difference below which two cells count as the same.
        detect: Effect for which the number of seeds was computed.
        cells: All cells, the baseline first.
        differences: Every other cell minus the baseline.
        combinations: Every two levels of two factors together.
        omnibus: F-tests of all interactions of two factors.
        notes: What a reader must know about the table before its numbers.
        sentences: The findings in plain sentences.
    """

    metric: str
    factors: tuple[str, ...]
    baseline: str
    pair_by: str | None
    primary: Primary
    lower_is_better: bool | None
    family: str
    margin: float | None
    detect: float | None
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    combinations: tuple[Combination, ...]
    omnibus: tuple[Omnibus, ...]
    notes: tuple[str, ...]
    sentences: tuple[str, ...]
