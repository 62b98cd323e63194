"""The norm above which a patch is an outlier.

The cut-off of a stage of the model comes from the norms of all patches of all images there: two normal components are
fitted to their logarithms, and it lies where a norm belongs to either with probability 1/2. There is none, and no patch
is an outlier, if a single component fits as well, if the two overlap or are of similar norm, or if most patches are in
the upper one.
"""

from math import exp, log, nan
from typing import NamedTuple

import numpy as np

from sinkablate.diagnostics.mixture import fit_mixture
from sinkablate.diagnostics.records import Array

MIN_BIC, MAX_VALLEY, MIN_FACTOR = 10.0, 0.5, 2.0
"""Two components are two groups if BIC prefers them by at least the first (very strong evidence, Kass and Raftery
1995) and the density between them falls below this part of the lower peak. The upper group consists of outliers if its
typical norm is at least this many times that of the lower."""
SMALLEST = 1e-30
"""Norms are raised to this before their logarithm is taken."""
ONE, OVERLAP, CLOSE, MAJORITY, SEPARATE = (
    "one component",
    "components overlap",
    "two groups of similar norm",
    "most patches in the upper group",
    "outliers",
)
"""What the mixture says about a stage; only the last gives a cut-off."""


class Cutoff(NamedTuple):
    """The cut-off of one stage, and how it was found."""

    value: float
    """A norm; NaN if there is none."""
    fit: str
    """What the mixture says."""
    columns: dict[str, float]
    """Numbers of the mixture for the table."""


def find_cutoff(norms: Array, absolute: float | None) -> Cutoff:
    """Return the cut-off for the norms of the patches of one stage.

    Args:
        norms: Of any shape.
        absolute: A fixed cut-off instead, such as 150 in the registers paper (arXiv 2309.16588).
    """
    mixture = fit_mixture(np.log(np.maximum(norms, SMALLEST, dtype=np.float64)))
    if mixture.bic_difference < MIN_BIC:
        fit = ONE
    elif mixture.valley > MAX_VALLEY or np.isnan(mixture.crossing):
        fit = OVERLAP
    elif mixture.means[1] - mixture.means[0] < log(MIN_FACTOR):
        fit = CLOSE
    else:
        fit = SEPARATE if mixture.weights[1] < 0.5 else MAJORITY
    value = exp(mixture.crossing) if fit == SEPARATE else nan
    columns = {
        "components": 1 if fit == ONE else 2,
        "bic_difference": mixture.bic_difference,
        "valley": mixture.valley,
        "lower_norm": exp(mixture.means[0]),
        "upper_norm": exp(mixture.means[1]),
        "upper_share": mixture.weights[1],
    }
    return Cutoff(value if absolute is None else absolute, fit, columns)
