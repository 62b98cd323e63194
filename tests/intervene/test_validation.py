"""Statistics of label validation, compared with values computed by hand and by explicit resampling."""

import math

import numpy as np
import polars as pl
import pytest

from sinkablate.intervene.validation import (
    CONFOUNDERS,
    FEWEST,
    auc,
    concordance,
    over_blocks,
    residual_association,
    validate,
    weighted_median,
)

RNG = np.random.default_rng(0)


def heads(blocks: list[int], labels: list[str], effect: list[float], local: list[float] | None = None) -> pl.DataFrame:
    alike = {name: [1.0] * len(blocks) for name in CONFOUNDERS}
    return pl.DataFrame({"block": blocks, "class": labels, "effect": effect, "local_size": local or effect, **alike})


def test_auc_by_hand_with_ties() -> None:
    pairs = concordance(np.array([3.0, 2.0]), np.array([1.0, 2.0, 4.0]))
    assert pairs.tolist() == [[1, 1, 0], [1, 0.5, 0]]
    assert auc(pairs, np.ones((1, 2)), np.ones((1, 3)))[0] == pytest.approx(3.5 / 6)
    assert math.isnan(auc(np.full((2, 3), math.nan), np.ones((1, 2)))[0])


def test_integer_weights_are_repetitions() -> None:
    positive, negative = RNG.normal(size=6), RNG.normal(size=5)
    weights = RNG.integers(0, 4, (20, 11)).astype(float)
    values = auc(concordance(positive, negative), weights[:, :6], weights[:, 6:])
    medians = weighted_median(np.concatenate([positive, negative]), weights)
    for row, value, median in zip(weights.astype(int), values, medians, strict=True):
        p, q = np.repeat(positive, row[:6]), np.repeat(negative, row[6:])
        assert value == pytest.approx((p[:, None] > q[None]).mean())
        assert median == pytest.approx(np.median(np.concatenate([p, q])))
    assert np.isnan(weighted_median(np.array([math.nan]), np.ones((2, 1)))).all()


def test_an_interval_over_blocks_covers_the_truth() -> None:
    """Heads of a block share a shift, so an interval that resamples heads would be far too narrow."""
    blocks = np.repeat(np.arange(20), 4)
    hits = 0
    for _ in range(200):
        values = np.repeat(RNG.normal(size=20), 4) + 0.1 * RNG.normal(size=80)
        interval = over_blocks(blocks, lambda w, v=values: (w @ v) / w.sum(1), draws=300)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


@pytest.mark.parametrize("few", ["broadcast", "nop"])
def test_fewer_than_five_heads_of_a_class_are_undefined(few: str) -> None:
    counts = {"broadcast": FEWEST, "nop": FEWEST} | {few: FEWEST - 1}
    labels = [name for name, count in counts.items() for _ in range(count)]
    result = validate(heads(list(range(len(labels))), labels, list(map(float, range(len(labels))))))
    assert result[f"{few}_heads"] == FEWEST - 1
    assert math.isnan(result["auc"])
    assert math.isnan(result["delta_auc"])


def test_effects_equal_to_local_size_gain_nothing() -> None:
    blocks = [block for block in range(6) for _ in range(4)]
    labels = ["broadcast", "broadcast", "nop", "nop"] * 6
    size = [value + 10 * block for block in range(6) for value in (4.0, 3.0, 2.0, 1.0)]
    alike = validate(heads(blocks, labels, size, size))
    assert alike["auc_within"] == alike["auc_local_within"] == 1
    assert alike["delta_auc"] == alike["delta_auc_low"] == alike["delta_auc_high"] == 0
    assert 0.5 < alike["auc"] < 0.7  # over all blocks, the effect of depth hides that of the label
    backwards = validate(heads(blocks, labels, size, [-value for value in size]))
    assert backwards["delta_auc"] == pytest.approx(1)
    assert backwards["delta_auc_low"] == pytest.approx(1)


def test_depth_alone_is_not_an_association() -> None:
    blocks = [block for block in range(8) for _ in range(2)]
    labels = ["broadcast", "nop"] * 8
    deep = residual_association(heads(blocks, labels, [float(block) for block in blocks]))
    assert math.isnan(deep) or abs(deep) < 1e-9
    effect = [block + (0.4 if label == "broadcast" else 0) for block, label in zip(blocks, labels, strict=True)]
    assert residual_association(heads(blocks, labels, effect)) > 0.5


def test_a_curved_dependence_on_depth_is_removed() -> None:
    """Effects and labels vary with depth in a curve, and are unrelated within each block."""
    blocks = [block for block in range(9) for _ in range(4)]
    labels = ["broadcast" if abs(block - 4) > 2 or head == 0 else "nop" for block in range(9) for head in range(4)]
    bent = [float(abs(block - 4)) for block in blocks]
    assert math.isnan(residual_association(heads(blocks, labels, bent)))


def test_one_block_with_both_labels_has_no_interval() -> None:
    blocks = [0] * 10 + [1] * 5 + [2] * 5
    labels = ["broadcast", "nop"] * 5 + ["broadcast"] * 5 + ["nop"] * 5
    size = [float(index % 3) for index in range(20)]
    result = validate(heads(blocks, labels, [float(index) for index in range(20, 0, -1)], size))
    assert result["informative_blocks"] == 1
    assert math.isfinite(result["delta_auc"])
    assert math.isnan(result["delta_auc_low"])


def test_heads_with_an_undefined_confounder_are_not_matched() -> None:
    blocks = [0] * 10
    table = heads(blocks, ["broadcast"] * 5 + ["nop"] * 5, [9.0] * 5 + [1.0, 1.0, 1.0, 1.0, 0.0])
    incomplete = table.with_columns(token_norm=pl.Series([5.0] * 9 + [math.nan]))
    assert validate(incomplete)["matched_pairs"] == 5


def test_heads_are_matched_within_their_block() -> None:
    blocks = [0] * 6 + [1] * 6
    labels = (["broadcast"] * 3 + ["nop"] * 3) * 2
    table = heads(blocks, labels, [100.0] * 3 + [1.0] * 3 + [10.0] * 3 + [1.0] * 3)
    result = validate(table)
    assert result["matched_pairs"] == 6
    assert result["matched_log10_ratio"] == pytest.approx(1.5)
    far = table.with_columns(token_norm=pl.when(pl.col("class") == "nop").then(500.0).otherwise(5.0))
    assert validate(far)["matched_pairs"] == 0
    assert math.isnan(validate(far)["matched_log10_ratio"])
