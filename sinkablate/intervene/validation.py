"""Validate the labels: editing a broadcast head should have a larger effect than editing a NOP head.

Each head is scored by the median effect of an edit over its events; broadcast is the positive class, NOP the negative.
The bootstrap resamples blocks: the heads of a block share their depth, so intervals over heads would be too narrow.
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
"""Maps the count of every head in each bootstrap sample, (S, heads), to one number per sample, (S,)."""

DRAWS = 2000
LEVEL = 0.95
FEWEST = 5
"""With fewer heads in either class, everything is NaN."""
FEWEST_BLOCKS = 5
"""With fewer blocks that have heads of both classes, a comparison within blocks has no interval."""
CALIPER = 1.0
"""Largest Euclidean distance between matched heads over the three confounders, in standard deviations."""
CONFOUNDERS = ("mass", "entropy", "token_norm")


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; NaN if it is undefined."""

    value: float
    low: float = nan
    high: float = nan

    def fields(self, name: str) -> dict[str, float]:
        """Return the estimate as three columns."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def over_blocks(blocks: NDArray[np.int64], statistic: Statistic, draws: int = DRAWS, fewest: int = 3) -> Estimate:
    """Compute a statistic and its percentile interval from a bootstrap over blocks.

    Draws in which the statistic is undefined are left out; if they are more than half, there is no interval.

    Args:
        blocks: Block of each head; contains only blocks that the statistic depends on.
        statistic: The statistic, as a function of how often each head is drawn.
        draws: Number of bootstrap samples.
        fewest: Smallest number of blocks that gives an interval.
    """
    value = float(statistic(np.ones((1, len(blocks))))[0])
    names, block_index = np.unique(blocks, return_inverse=True)
    if len(names) < fewest or np.isnan(value):
        return Estimate(value)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    drawn = statistic(counts[:, block_index].astype(np.float64))
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < draws / 2:
        return Estimate(value)
    return Estimate(value, *np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist())


def weighted_median(values: Floats, weights: Floats) -> Floats:
    """Return the median (S,) of values (heads,) with their counts in each sample (S, heads); NaN if all are 0."""
    defined = ~np.isnan(values)
    order = np.argsort(values[defined])
    ranked, until = values[defined][order], np.cumsum(weights[:, defined][:, order], axis=1)
    total = until[:, -1:] if ranked.size else np.zeros((len(weights), 1))
    if not ranked.size:
        return np.full(len(weights), nan)
    middle = [np.minimum((until <= (total - step) // 2).sum(axis=1), len(ranked) - 1) for step in (1, 0)]
    return np.where(total[:, 0] > 0, (ranked[middle[0]] + ranked[middle[1]]) / 2, nan)


def concordance(positive: Floats, negative: Floats) -> Floats:
    """Return 1 for every pair whose positive score is larger, .5 for a tie, else 0, (P, Q)."""
    difference = positive[:, None] - negative[None, :]
    return (np.sign(difference) + 1) / 2


def auc(pairs: Floats, positive: Floats, negative: Floats | None = None) -> Floats:
    """Return the weighted mean of concordance, which is the area under the ROC curve, (S,); NaN without pairs.

    Args:
        pairs: Concordance (P, Q); NaN where a pair does not count.
        positive: Weight of each positive head in each sample (S, P).
        negative: Weight of each negative head in each sample (S, Q); if None, only positive heads have weights.
    """
    counts = (~np.isnan(pairs)).astype(np.float64)
    filled = np.nan_to_num(pairs)
    other = np.ones((len(positive), pairs.shape[1])) if negative is None else negative
    hits, total = (np.einsum("sp,pq,sq->s", positive, matrix, other) for matrix in (filled, counts))
    return np.divide(hits, total, out=np.full(len(positive), nan), where=total > 0)


def validate(heads: pl.DataFrame) -> dict[str, float | int]:
    """Test whether the effect of one edit separates broadcast heads from NOP heads.

    `auc` is over all pairs of a broadcast and a NOP head, and `auc_within` over the pairs within a block; `auc_local…`
    scores heads by their local size |A_:s| |u_s| instead. The main result is `delta_auc`: how much better the effect
    separates them than the local size does, within blocks, where depth is the same; it comes from the
    `informative_blocks`, which have heads of both classes. `matched_log10_ratio` compares each broadcast head with the
    NOP head of its block that is nearest in mass, row entropy and token norm; `matched_silent` of these pairs have no
    ratio, because an effect is zero. `residual_association` is the rank correlation of label and effect after the mean
    of each block is subtracted from both.

    Args:
        heads: One row per head with enough events: `class`, `block`, `effect`, `local_size` and the confounders.

    Returns:
        The numbers by name; with fewer than five heads in either class, all but the counts are NaN.
    """
    positive, negative = (heads.filter(pl.col("class") == name) for name in ("broadcast", "nop"))
    results: dict[str, float | int] = {"broadcast_heads": len(positive), "nop_heads": len(negative)}
    names = ("auc", "auc_local", "auc_within", "auc_local_within", "delta_auc", "matched_log10_ratio")
    results["informative_blocks"] = len(set(positive["block"]) & set(negative["block"]))
    if min(len(positive), len(negative)) < FEWEST:
        empty = {key: value for name in names for key, value in Estimate(nan).fields(name).items()}
        return (
            results
            | empty
            | {"cliffs_delta": nan, "matched_pairs": 0, "matched_silent": 0, "residual_association": nan}
        )
    both = pl.concat([positive, negative])
    for score, name in (("effect", "auc"), ("local_size", "auc_local")):
        pairs = concordance(positive[score].to_numpy(), negative[score].to_numpy())
        results |= over_blocks(both["block"].to_numpy(), _everywhere(pairs)).fields(name)
    results["cliffs_delta"] = 2 * float(results["auc"]) - 1
    results |= _within_blocks(positive, negative) | _matched(positive, negative)
    results["residual_association"] = residual_association(both)
    return results


def _everywhere(pairs: Floats) -> Statistic:
    """Return the AUC over all pairs as a statistic; positive heads come first."""
    split = len(pairs)
    return lambda w: auc(pairs, w[:, :split], w[:, split:])


def _within_blocks(positive: pl.DataFrame, negative: pl.DataFrame) -> dict[str, float | int]:
    """Compute AUCs over the pairs within a block; a bootstrap sample contains all heads of a block or none."""
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
    """Compute the log ratio of effects between each broadcast head and the most similar NOP head of its block."""
    both = pl.concat([positive, negative]).select(CONFOUNDERS).to_numpy()
    scale = np.nanstd(both, axis=0)
    scaled = (both - np.nanmean(both, axis=0)) / np.where(scale > 0, scale, 1)
    positives, negatives = scaled[: len(positive)], scaled[len(positive) :]
    ratios, blocks, silent = [], [], 0
    for index, row in enumerate(positive.iter_rows(named=True)):
        near = np.flatnonzero(negative["block"].to_numpy() == row["block"])
        distance = np.nan_to_num(np.linalg.norm(negatives[near] - positives[index], axis=1), nan=np.inf)
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
    """Return the rank correlation of label (broadcast 1, NOP 0) and effect, both minus the mean of their block."""
    blocks = heads["block"].to_numpy()
    label = (heads["class"] == "broadcast").to_numpy().astype(float)
    x, y = (_within(rankdata(values), blocks) for values in (label, heads["effect"].to_numpy()))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / scale) if scale > 1e-9 else nan


def _within(values: Floats, blocks: NDArray[np.int64]) -> Floats:
    """Subtract from values the mean of their block."""
    _, block_index = np.unique(blocks, return_inverse=True)
    return values - (np.bincount(block_index, values) / np.bincount(block_index))[block_index]
