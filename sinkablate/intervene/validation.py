"""Are labels worth anything? Heads labelled broadcast should matter more than heads labelled NOP.

The unit is the head, its score the median effect of an edit over its events. Positive: broadcast; negative: NOP.
Blocks are what is resampled: heads of one block share their depth, and an interval over heads is far too narrow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import nan

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""From how often every head is in each sample, (S, heads), to a number for each, (S,)."""

DRAWS = 2000
LEVEL = 0.95
FEWEST = 5
"""Heads of each class without which nothing is said."""
CALIPER = 1.0
"""Largest distance of matched heads, in standard deviations over all three confounders."""
CONFOUNDERS = ("mass", "entropy", "token_norm")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN where there is none."""

    value: float
    low: float = nan
    high: float = nan

    def fields(self, name: str) -> dict[str, float]:
        """As three columns."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def over_blocks(blocks: NDArray[np.int64], statistic: Statistic, draws: int = DRAWS) -> Estimate:
    """A statistic with its percentile interval from a bootstrap over blocks.

    Draws in which the statistic is undefined are left out; where those are more than half, so is the interval.

    Args:
        blocks: Block of each head.
        statistic: Of the number of times each head is in a sample.
        draws: How many samples.
    """
    value = float(statistic(np.ones((1, len(blocks))))[0])
    names, place = np.unique(blocks, return_inverse=True)
    if len(names) < 2 or np.isnan(value):
        return Estimate(value)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = statistic(counts[:, place].astype(np.float64))
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < draws / 2:
        return Estimate(value)
    return Estimate(value, *np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Median of values (heads,) that occur so many times in each sample (S, heads), (S,); NaN of nothing."""
    defined = ~np.isnan(values)
    order = np.argsort(values[defined])
    ranked, until = values[defined][order], np.cumsum(weights[:, defined][:, order], axis=1)
    total = until[:, -1:] if ranked.size else np.zeros((len(weights), 1))
    if not ranked.size:
        return np.full(len(weights), nan)
    middle = [np.minimum((until <= (total - step) // 2).sum(axis=1), len(ranked) - 1) for step in (1, 0)]
    return np.where(total[:, 0] > 0, (ranked[middle[0]] + ranked[middle[1]]) / 2, nan)


def concordance(positive: Floats, negative: Floats) -> Floats:
    """For every pair whether the positive score is larger: 1, .5 for equal ones, 0, (P, Q)."""
    difference = positive[:, None] - negative[None, :]
    return (np.sign(difference) + 1) / 2


def auc(pairs: Floats, positive: Floats, negative: Floats | None = None) -> Floats:
    """Mean of concordance over weighted pairs, the area under the ROC curve with mid-ranks, (S,); NaN without a pair.

    Args:
        pairs: Concordance (P, Q); NaN where a pair does not count.
        positive: Weight of each positive head in each sample (S, P).
        negative: Of each negative head (S, Q); None: a pair's weight is its positive head's.
    """
    counts = (~np.isnan(pairs)).astype(np.float64)
    filled = np.nan_to_num(pairs)
    other = np.ones((len(positive), pairs.shape[1])) if negative is None else negative
    hits, total = (np.einsum("sp,pq,sq->s", positive, matrix, other) for matrix in (filled, counts))
    return np.divide(hits, total, out=np.full(len(positive), nan), where=total > 0)


def validate(heads: pl.DataFrame) -> dict[str, float | int]:
    """What one edit says of the labels.

    `auc` counts all pairs of a broadcast and a NOP head, `auc_within` those of one block; `auc_local…` scores heads by
    their local size |A_:s| |u_s| instead. `delta_auc` is the gain of the effect over the local size within blocks,
    where depth is the same: the figure that counts. `matched_log10_ratio` compares each broadcast head with the NOP
    head of its block nearest in mass, row entropy and token norm; `residual_association` is the rank correlation of
    label and effect after both are freed of depth.

    Args:
        heads: One row per head that counts, with `class`, `block`, `effect`, `local_size` and the confounders.

    Returns:
        NaN for everything that needs five heads of each class where there are fewer.
    """
    positive, negative = (heads.filter(pl.col("class") == name) for name in ("broadcast", "nop"))
    found: dict[str, float | int] = {"broadcast_heads": len(positive), "nop_heads": len(negative)}
    names = ("auc", "auc_local", "auc_within", "auc_local_within", "delta_auc", "matched_log10_ratio")
    if min(len(positive), len(negative)) < FEWEST:
        empty = {key: value for name in names for key, value in Estimate(nan).fields(name).items()}
        return found | empty | {"cliffs_delta": nan, "matched_pairs": 0, "residual_association": nan}
    both = pl.concat([positive, negative])
    blocks, split = both["block"].to_numpy(), len(positive)
    pairs = {score: concordance(positive[score].to_numpy(), negative[score].to_numpy())
             for score in ("effect", "local_size")}
    same = blocks[:split, None] == blocks[None, split:]

    def everywhere(score: str) -> Statistic:
        return lambda w: auc(pairs[score], w[:, :split], w[:, split:])

    def within(score: str) -> Statistic:  # the heads of a block come together: a pair as often as either
        return lambda w: auc(np.where(same, pairs[score], nan), w[:, :split])

    statistics: dict[str, Statistic] = {
        "auc": everywhere("effect"), "auc_local": everywhere("local_size"), "auc_within": within("effect"),
        "auc_local_within": within("local_size"),
        "delta_auc": lambda w: within("effect")(w) - within("local_size")(w)}
    for name, statistic in statistics.items():
        found |= over_blocks(blocks, statistic).fields(name)
    found["cliffs_delta"] = 2 * float(found["auc"]) - 1
    found |= _matched(positive, negative)
    found["residual_association"] = residual_association(both)
    return found


def _matched(positive: pl.DataFrame, negative: pl.DataFrame) -> dict[str, float | int]:
    """Log ratio of effects of each broadcast head and the NOP head most like it in the same block."""
    both = pl.concat([positive, negative]).select(CONFOUNDERS).to_numpy()
    scale = np.nanstd(both, axis=0)
    scaled = (both - np.nanmean(both, axis=0)) / np.where(scale > 0, scale, 1)
    mine, theirs = scaled[:len(positive)], scaled[len(positive):]
    ratios, blocks = [], []
    for place, row in enumerate(positive.iter_rows(named=True)):
        near = np.flatnonzero(negative["block"].to_numpy() == row["block"])
        if not near.size:
            continue
        distance = np.linalg.norm(theirs[near] - mine[place], axis=1)
        partner = near[np.argmin(np.where(np.isnan(distance), np.inf, distance))]
        other = float(negative["effect"][int(partner)])
        if distance.min() <= CALIPER and row["effect"] > 0 and other > 0:
            ratios.append(np.log10(row["effect"] / other))
            blocks.append(row["block"])
    values = np.array(ratios)
    estimate = over_blocks(np.array(blocks), lambda w: weighted_median(values, w)) if ratios else Estimate(nan)
    return {"matched_pairs": len(ratios), **estimate.fields("matched_log10_ratio")}


def residual_association(heads: pl.DataFrame) -> float:
    """Partial Spearman correlation of label (broadcast 1, NOP 0) and effect given the block."""
    depth = rankdata(heads["block"].to_numpy())
    label = (heads["class"] == "broadcast").to_numpy().astype(float)
    x, y = (_residual(rankdata(values), depth) for values in (label, heads["effect"].to_numpy()))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / scale) if scale > 1e-9 else nan


def _residual(y: Floats, x: Floats) -> Floats:
    """y without its mean and its regression on x."""
    x, y = x - x.mean(), y - y.mean()
    power = x @ x
    return y - x * (x @ y / power) if power else y
