"""The distribution of token norms in the last block, from histograms with common edges."""

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.norms import norm_histograms
from sinkablate.figures.sinks import new_axes, plain_log


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


def test_a_panel_is_named_after_the_tokens_that_its_variants_have() -> None:
    tables = {"vit": [histogram(0, 1, 2, kind="register")], "toy": [histogram(3, 0, 0, kind="register")]}
    null = {"toy": {"register": "null token"}}
    assert [axis.get_title() for axis in norm_histograms(tables, null)[0].axes] == ["register or null token"]
    alone = norm_histograms({"toy": tables["toy"]}, null)[0]
    assert [axis.get_title() for axis in alone.axes] == ["null token"]


def test_a_narrow_logarithmic_axis_has_few_ticks() -> None:
    _, (axis,) = new_axes(1, 1, (2, 2))
    axis.plot([1.01, 1.2], [1, 1])
    plain_log(axis, "x")
    low, high = axis.get_xlim()
    assert 2 <= sum(low <= tick <= high for tick in axis.get_xticks()) <= 5
