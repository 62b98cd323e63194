"""Are labels worth anything? Heads labeled broadcast should matter more than heads labeled NOP.

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
FEWEST_BLOCKS = 5
"""Blocks with heads of both labels without which a comparison within blocks has no interval."""
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


def over_blocks(blocks: NDArray[np.int64], statistic: Statistic, draws: int = DRAWS, fewest: int = 3) -> Estimate:
    """A statistic with its percentile interval from a bootstrap over blocks.

    Draws in which the statistic is undefined are left out; where those are more than half, so is the interval.

    Args:
        blocks: Block of each head; only blocks on which the statistic depends.
        statistic: Of the number of times each head is in a sample.
        draws: How many samples.
        fewest: There is no interval from fewer blocks.
    """
    value = float(statistic(np.ones((1, len(blocks))))[0])
    names, place = np.unique(blocks, return_inverse=True)
    if len(names) < fewest or np.isnan(value):
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
    where depth is the same: the figure that counts, from the `informative_blocks` that have heads of both labels.
    `matched_log10_ratio` compares each broadcast head with the NOP head of its block nearest in mass, row
    entropy and token norm, `matched_silent` of which have no effect and so no ratio; `residual_association` is the rank
    correlation of label and effect after both are freed of depth, block by block.

    Args:
        heads: One row per head that counts, with `class`, `block`, `effect`, `local_size` and the confounders.

    Returns:
        NaN for everything that needs five heads of each class where there are fewer.
    """
    positive, negative = (heads.filter(pl.col("class") == name) for name in ("broadcast", "nop"))
    found: dict[str, float | int] = {"broadcast_heads": len(positive), "nop_heads": len(negative)}
    names = ("auc", "auc_local", "auc_within", "auc_local_within", "delta_auc", "matched_log10_ratio")
    found["informative_blocks"] = len(set(positive["block"]) & set(negative["block"]))
    if min(len(positive), len(negative)) < FEWEST:
        empty = {key: value for name in names for key, value in Estimate(nan).fields(name).items()}
        return (
            found | empty | {"cliffs_delta": nan, "matched_pairs": 0, "matched_silent": 0, "residual_association": nan}
        )
    both = pl.concat([positive, negative])
    for score, name in (("effect", "auc"), ("local_size", "auc_local")):
        pairs = concordance(positive[score].to_numpy(), negative[score].to_numpy())
        found |= over_blocks(both["block"].to_numpy(), _everywhere(pairs)).fields(name)
    found["cliffs_delta"] = 2 * float(found["auc"]) - 1
    found |= _within_blocks(positive, negative) | _matched(positive, negative)
    found["residual_association"] = residual_association(both)
    return found


def _everywhere(pairs: Floats) -> Statistic:
    """AUC over all pairs; positive heads come first."""
    split = len(pairs)
    return lambda w: auc(pairs, w[:, :split], w[:, split:])


def _within_blocks(positive: pl.DataFrame, negative: pl.DataFrame) -> dict[str, float | int]:
    """AUCs over the pairs within a block, from the blocks that have such pairs; a block's heads come together."""
    shared = set(positive["block"]) & set(negative["block"])
    positive, negative = (heads.filter(pl.col("block").is_in(shared)) for heads in (positive, negative))
    blocks = positive["block"].to_numpy()
    same = blocks[:, None] == negative["block"].to_numpy()[None]
    pairs = {
        score: np.where(same, concordance(positive[score].to_numpy(), negative[score].to_numpy()), nan)
        for score in ("effect", "local_size")
    }
    statistics: dict[str, Statistic] = {
        "auc_within": lambda w: auc(pairs["effect"], w),
        "auc_local_within": lambda w: auc(pairs["local_size"], w),
        "delta_auc": lambda w: auc(pairs["effect"], w) - auc(pairs["local_size"], w),
    }
    return {
        key: value
        for name, statistic in statistics.items()
        for key, value in over_blocks(blocks, statistic, fewest=FEWEST_BLOCKS).fields(name).items()
    }


def _matched(positive: pl.DataFrame, negative: pl.DataFrame) -> dict[str, float | int]:
    """Log ratio of effects of each broadcast head and the NOP head most like it in the same block."""
    both = pl.concat([positive, negative]).select(CONFOUNDERS).to_numpy()
    scale = np.nanstd(both, axis=0)
    scaled = (both - np.nanmean(both, axis=0)) / np.where(scale > 0, scale, 1)
    mine, theirs = scaled[: len(positive)], scaled[len(positive) :]
    ratios, blocks, silent = [], [], 0
    for place, row in enumerate(positive.iter_rows(named=True)):
        near = np.flatnonzero(negative["block"].to_numpy() == row["block"])
        distance = np.nan_to_num(np.linalg.norm(theirs[near] - mine[place], axis=1), nan=np.inf)
        if not near.size or distance.min() > CALIPER:
            continue
        other = float(negative["effect"][int(near[distance.argmin()])])
        if row["effect"] > 0 and other > 0:
            ratios.append(np.log10(row["effect"] / other))
            blocks.append(row["block"])
        else:
            silent += 1
    values = np.array(ratios)
    estimate = over_blocks(np.array(blocks), lambda w: weighted_median(values, w)) if ratios else Estimate(nan)
    return {"matched_pairs": len(ratios), "matched_silent": silent, **estimate.fields("matched_log10_ratio")}


def residual_association(heads: pl.DataFrame) -> float:
    """Rank correlation of label (broadcast 1, NOP 0) and effect, both freed of their block's mean."""
    blocks = heads["block"].to_numpy()
    label = (heads["class"] == "broadcast").to_numpy().astype(float)
    x, y = (_within(rankdata(values), blocks) for values in (label, heads["effect"].to_numpy()))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / scale) if scale > 1e-9 else nan


def _within(values: Floats, blocks: NDArray[np.int64]) -> Floats:
    """Values less the mean of their block."""
    _, place = np.unique(blocks, return_inverse=True)
    return values - (np.bincount(place, values) / np.bincount(place))[place]
