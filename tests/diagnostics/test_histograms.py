"""Histograms of token norms: exact counts, quantiles within a bin, and sums over batches."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from measured import BLOCKS, IMAGES, records

from sinkablate.diagnostics.histograms import BINS, EDGES, histogram, histogram_table, quantile


def test_the_bins_are_log_spaced() -> None:
    assert len(EDGES) == BINS + 1 == 65
    np.testing.assert_allclose(np.diff(np.log10(EDGES)), 0.1)
    assert (EDGES[0], EDGES[-1]) == pytest.approx((0.01, 10**4.4))


def test_counts_equal_those_of_numpy() -> None:
    norms = np.random.default_rng(0).lognormal(2, 1.5, 5000)
    inside = norms[(norms >= EDGES[0]) & (norms < EDGES[-1])]
    np.testing.assert_array_equal(histogram(inside), np.histogram(inside, EDGES)[0])


def test_values_outside_the_bins_count_in_the_outermost_and_nan_nowhere() -> None:
    counts = histogram(np.float32([0, 1e-9, 1e9, np.inf, np.nan]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


@pytest.mark.parametrize("q", [0.0, 0.01, 0.25, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("size", [1, 7, 5000])
def test_quantiles_are_within_a_bin_of_the_exact_ones(q: float, size: int) -> None:
    norms = np.random.default_rng(size).lognormal(3, 1, size)
    nearest = np.quantile(norms, q, method="nearest")
    assert abs(np.log10(quantile(histogram(norms), q) / nearest)) <= 0.1 + 1e-9


def test_a_quantile_of_nothing_is_nan() -> None:
    assert np.isnan(quantile(np.zeros(BINS), 0.5))


def test_the_table_counts_every_token_of_every_image_once() -> None:
    measured = records()
    table = histogram_table(measured, [0, 4, 7])
    assert len(table) == BLOCKS * 3 * BINS
    totals = {
        row["token_type"]: row["count"] for row in table.group_by("token_type").agg(pl.col("count").sum()).to_dicts()
    }
    layout = measured.layout
    assert totals == {
        "cls": BLOCKS * IMAGES * layout.num_cls,
        "register": BLOCKS * IMAGES * layout.num_registers,
        "patch": BLOCKS * IMAGES * layout.num_patches,
    }
    patches = table.filter(pl.col("block") == 4, pl.col("token_type") == "patch").sort("bin")["count"]
    np.testing.assert_array_equal(patches, histogram(measured.norms[:, 1, layout.num_prefix :]))


def test_histograms_of_batches_add_up() -> None:
    measured = records()
    parts = [
        histogram_table(replace(measured, order=measured.order[part], norms=measured.norms[part]))
        for part in (slice(0, 4), slice(4, None))
    ]
    total = histogram_table(measured)
    assert total.with_columns(count=parts[0]["count"] + parts[1]["count"]).equals(total)
