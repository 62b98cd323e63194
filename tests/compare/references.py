"""Reference values for the statistics: output of R, and published numbers."""

import numpy as np

SLEEP = (
    np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]),
    np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]),
)
"""R's `sleep` (Student 1908): hours of extra sleep of ten patients under two drugs."""
SLEEP_PAIRED = {"value": -1.58, "t": -4.0621, "df": 9, "p": 0.002833, "low": -2.4598858, "high": -0.7001142}
"""`t.test(extra ~ group, sleep, paired = TRUE)`, from the examples of `?t.test`."""
SLEEP_WELCH = {"value": -1.58, "t": -1.8608, "df": 17.776, "p": 0.07939, "low": -3.3654832, "high": 0.2054832}
"""`t.test(extra ~ group, sleep)`."""
SLEEP_HEDGES = -0.7970185
"""`effsize::cohen.d(extra ~ group, sleep, hedges.correction = TRUE)`."""
TEA = ((3, 4, 1, 4), 0.4857)
"""`fisher.test(matrix(c(3, 1, 1, 3), 2))`, Fisher's tea tasting of `?fisher.test`, two-sided: 3 of 4 against 1 of 4."""
HOLM = ((0.01, 0.02, 0.03, 0.04, 0.05), (0.05, 0.08, 0.09, 0.09, 0.09))
"""`p.adjust(c(.01, .02, .03, .04, .05), "holm")`; by hand: 5 x .01, 4 x .02, 3 x .03, never below the last."""
WARPBREAKS = {
    ("A", "L"): [26, 30, 54, 25, 70, 52, 51, 26, 67],
    ("A", "M"): [18, 21, 29, 17, 12, 18, 35, 30, 36],
    ("A", "H"): [36, 21, 24, 18, 10, 43, 28, 15, 26],
    ("B", "L"): [27, 14, 29, 19, 29, 31, 41, 20, 44],
    ("B", "M"): [42, 26, 19, 16, 39, 28, 21, 39, 29],
    ("B", "H"): [20, 21, 24, 17, 13, 15, 15, 16, 28],
}
"""R's `warpbreaks` (Tippett 1950): breaks of yarn by wool and tension, a 2 x 3 design with nine looms per cell."""
WARPBREAKS_INTERACTION = {"f": 4.189, "df": (2, 48), "p": 0.021044}
"""`summary(aov(breaks ~ wool * tension, warpbreaks))`, the row wool:tension."""
PUBLISHED_POWER = {3: (4.6, 3.3, 6.5), 5: (2.4, 1.7, 3.4), 10: (1.4, 1.0, 2.0)}
"""Detectable effects in single-run sd by n: paired at correlations 0 and .5, interaction."""


def published_seeds() -> tuple[np.ndarray, np.ndarray]:
    """Three seeds of the baseline and three of the elementwise gate that agree with all published numbers.

    Top-1 of LeJEPA ViT-L/16: 69.37 ± .07 and 69.52 ± .04, Welch [.02, .28], paired [-.07, .38]. The seeds themselves
    were not published; means, sample sds and intervals almost determine them, with a negative correlation of the pairs.
    """
    one, other = np.array([1, -1, 0]), np.array([1, 1, -2]) / np.sqrt(3)
    sd, r = (0.0651, 0.0449), -0.334
    return 69.37 + sd[0] * one, 69.521 + sd[1] * (r * one + np.sqrt(1 - r**2) * other)
