"""The atlas of a diagnosis and that of a report show the same points: medians over the events of each head."""

import numpy as np
import polars as pl
import pytest

from sinkablate.figures.atlas import VALUES, atlas, atlas_points, least_events

LIMITS = {"nop_max": 0.2, "broadcast_min": 0.5, "rank_max": 1.5}
EVENTS = {"nop": (0, 9, 0, 2), "broadcast": (8, 0, 0, 0), "other": (0, 0, 0, 0)}
"""Label -> events of four heads on ten images: a broadcast head in block 0, a NOP head, no event, too few events."""


def heads(images: int = 10) -> pl.DataFrame:
    medians = {"ratio_out": 0.6, "ratio_head": 0.7, "sink_head_norm": 3.0, "stable_rank": 1.4}
    return pl.DataFrame(
        {
            "block": [0, 1, 1, 1],
            "head": [0, 0, 1, 2],
            "images": images,
            "token_type": "cls",
            **{f"causal_{label}": counts for label, counts in EVENTS.items()},
            **{f"median_{name}": value for name, value in medians.items()},
            **{f"causal_event_median_{name}": value / 10 for name, value in medians.items()},
        }
    )


def test_a_head_without_enough_events_has_no_label_and_is_at_medians_over_all_images() -> None:
    points = atlas_points(heads(), "causal")
    assert points["label"].to_list() == ["broadcast", "nop", "none", "none"]
    assert points["min_events"].unique().to_list() == [5]
    assert points["ratio_out"].to_list() == pytest.approx([0.06, 0.06, 0.6, 0.6])
    assert points["rank"].to_list() == pytest.approx([0.14, 0.14, 1.4, 1.4])
    assert atlas_points(heads(), "causal", 1)["label"].to_list() == ["broadcast", "nop", "none", "nop"]


@pytest.mark.parametrize(("images", "least"), [(1, 1), (8, 4), (99, 49), (100, 50), (5000, 50)])
def test_the_least_number_of_events(images: int, least: int) -> None:
    assert least_events(images) == least


def test_the_atlas_draws_its_data_with_the_rank_across_and_block_0_hollow() -> None:
    points = atlas_points(heads(), "causal", 1)
    figure, data = atlas({"model": [points]}, "causal", {"model": LIMITS})
    panels = figure.axes[: len(VALUES)]
    for axis, value in zip(panels, VALUES, strict=True):
        drawn = np.concatenate([collection.get_offsets() for collection in axis.collections])
        assert sorted(map(tuple, drawn.tolist())) == sorted(data.select("rank", value).rows())
        assert (axis.get_xscale(), axis.get_ylabel()) == ("log", VALUES[value])
        hollow = [not len(collection.get_facecolors()) for collection in axis.collections]
        assert hollow == [block == 0 for block in (0, 1, 1)]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"NOP", "broadcast", "block 0 (hollow)"} <= set(texts)
    assert "≥ 1 events" in panels[0].get_title(loc="left")
    assert figure.get_suptitle().endswith("model, rule causal")


def test_variants_are_rows_on_one_color_scale() -> None:
    points = atlas_points(heads(), "causal", 1)
    figure, data = atlas(
        {"before": [points], "after": [points, points]}, "causal", dict.fromkeys(("before", "after"), LIMITS)
    )
    assert data["variant"].to_list() == ["before"] * 4 + ["after"] * 8
    assert len([axis for axis in figure.axes if axis.get_label() != "<colorbar>"]) == 2 * len(VALUES)
    assert figure.get_figwidth() == 6.75
