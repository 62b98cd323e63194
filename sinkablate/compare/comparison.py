"""What a comparison of one metric says, as values."""

from dataclasses import dataclass
from typing import Literal

from sinkablate.compare.statistics import Inference

Primary = Literal["paired", "welch"]
Kind = Literal["synergistic", "sub-additive", "additive", "undetermined", "not estimable"]
Claim = Literal["supported", "not supported", "not estimable"]


@dataclass(frozen=True)
class Cell:
    """The runs of one combination of levels.

    `runs` were there, `diverged` of them diverged and `missing` more have no finite metric; the `n` others have the
    mean and its interval in `mean` and the sample standard deviation `sd`. `nested` counts values averaged into a run.
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
        """Runs of which it is known whether they diverged."""
        return self.runs - self.missing


@dataclass(frozen=True)
class Difference:
    """A cell less the baseline, in the metric's units whichever direction is better.

    Both estimates are there; `estimate` is the primary one, to which `p` after Holm, `p_equivalent` (TOST, NaN
    without a margin; after Holm too), `detectable` (80 % power at these n and this spread, before Holm) and
    `seeds_needed` for the effect the user named belong. `p_sign_flip` is NaN under six pairs, above fifty, and of
    images. `p_diverged` is Fisher's exact test on the shares of diverged runs after Holm, NaN where none diverged.
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
    better: bool | None
    """Better (True) or worse (False) than the baseline at 5 % after Holm; None: no difference is established."""


@dataclass(frozen=True)
class Combination:
    """What two levels of two factors, `first` and `second`, do together; other factors at the baseline's levels.

    `over_first` and `over_second` are the combination's cell less each of them alone. `complementary`: both are better
    at 5 % (intersection-union test, `p_complementary` its p, two-sided and after Holm over combinations).
    `interaction` = (both - first) - (second - neither), `p_holm` after Holm over interactions; `kind` reads it so that
    synergistic means better than the sum of the two effects, and additive is said by TOST within the margin alone.
    """

    first: str
    second: str
    cell: str
    over_first: Inference
    over_second: Inference
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
    """F-test that all interaction contrasts of two factors are zero."""

    factors: tuple[str, str]
    test: str
    f: float
    df: tuple[float, float]
    p: float


@dataclass(frozen=True)
class Comparison:
    """Everything said about one metric; `notes` are what a reader must know of the table before any number of it."""

    metric: str
    factors: tuple[str, ...]
    baseline: str
    pair_by: str | None
    primary: Primary
    lower_is_better: bool
    family: str
    margin: float | None
    detect: float | None
    cells: tuple[Cell, ...]
    differences: tuple[Difference, ...]
    combinations: tuple[Combination, ...]
    omnibus: tuple[Omnibus, ...]
    notes: tuple[str, ...]
    sentences: tuple[str, ...]
