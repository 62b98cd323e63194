"""The distribution of token norms in the last block, from histograms with common edges."""

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.norms import norm_histograms


def histogram(*counts: int, kind: str = "patch", block: int = 1) -> pl.DataFrame:
    edges = 10.0 ** (np.arange(len(counts) + 1) / 10)
    return pl.DataFrame(
        {
            "block": block,
            "token_type": kind,
            "bin": range(len(counts)),
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
        }
    )


def test_variants_are_overlaid_and_the_counts_of_their_runs_are_added() -> None:
    one = pl.concat([histogram(9, 9, 9, 9, block=0), histogram(0, 3, 1, 0), histogram(0, 0, 0, 2, kind="register")])
    other = histogram(0, 1, 3, 0)
    figure, data = norm_histograms({"two seeds": [one, other], "other": [other]})
    panels = {axis.get_title(): axis for axis in figure.axes}
    assert list(panels) == ["register", "patch"]
    assert [patch.get_label() for patch in panels["patch"].patches] == ["two seeds", "other"]
    drawn = {patch.get_label(): patch.get_data().values.tolist() for patch in panels["patch"].patches}
    assert drawn == {"two seeds": [0, 0.5, 0.5, 0], "other": [0, 0.25, 0.75, 0]}
    assert panels["patch"].get_xscale() == "log"
    shares = data.group_by("variant", "token_type").agg(pl.col("share").sum())
    assert shares["share"].to_list() == pytest.approx([1.0] * len(shares))
    assert set(data["block"]) == {1}
